from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from indexer import CategoryIndex, IndexStore
from models.errors import UserError
from service.cli import training as commands_training
from tests.training.samples import FakeEncoder, write_folder
from training import Recipe


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> typer.Typer:
    monkeypatch.setattr(commands_training, "loaded_model", lambda *_: nullcontext(FakeEncoder()))
    monkeypatch.setenv("CLIPDEX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    commands_training.register(app)
    return app


def call(app: typer.Typer, *words: str) -> dict[str, object]:
    done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_tune_then_finetune_with_its_recipe(app: typer.Typer, tmp_path: Path) -> None:
    root = str(write_folder(tmp_path / "shots", {"cat": 8, "dog": 8}))
    tuned = call(app, "tune", root, "--trials", "2", "--method", "random", "--views", "1")
    assert tuned["trials"] == 2
    assert Recipe.from_file(tmp_path / "recipe.yaml").epochs == 30
    made = call(
        app,
        *("finetune", root, "--recipe", "recipe.yaml", "--name", "pets", "--views", "1"),
        *("--data", str(tmp_path / "data")),
    )
    assert (made["adapter"], made["version"]) == ("pets", 1)
    assert made["gate"] in ("passed", "refused")
    assert (tmp_path / "report.html").stat().st_size > 1000
    assert (tmp_path / "data" / "adapters" / "pets" / "1" / "manifest.json").exists()
    assert any((tmp_path / "cache" / "features").iterdir())


def test_method_head_and_plain_text(app: typer.Typer, tmp_path: Path) -> None:
    root = str(write_folder(tmp_path / "shots", {"cat": 6, "dog": 6}))
    words = ["finetune", root, "--method", "head", "--data", str(tmp_path / "data")]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "head" in done.stdout.split("why")[0]


def test_mistakes_reach_the_one_place_that_prints_them(app: typer.Typer, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "shots", {"cat": 4, "dog": 1})
    with pytest.raises(UserError, match=r"dog \(one image\)"):
        CliRunner().invoke(app, ["finetune", str(root), "--val", "0.2"], catch_exceptions=False)
    (root / "dog" / "x.txt").write_text("no image")
    with pytest.raises(UserError, match="--skip-bad"):
        CliRunner().invoke(app, ["tune", str(root)], catch_exceptions=False)


def test_what_is_not_installed_is_said_before_anything_is_encoded(
    app: typer.Typer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = write_folder(tmp_path / "shots", {"cat": 4, "dog": 4})
    monkeypatch.setattr("training.errors._is_installed", lambda name: name != "optuna")

    def encoded(*_: object, **__: object) -> None:
        raise AssertionError("images were encoded")

    monkeypatch.setattr("training.finetune.encode", encoded)
    with pytest.raises(UserError, match=r"needs optuna; install with: \S+ -m pip install"):
        CliRunner().invoke(app, ["finetune", str(root)], catch_exceptions=False)


def test_a_folder_alone_makes_an_index_of_its_own_labels(app: typer.Typer, tmp_path: Path) -> None:
    root = str(write_folder(tmp_path / "my pets", {"cat": 5, "dog": 5}))
    words = ["finetune", root, "--views", "1", "--data", str(tmp_path / "data")]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "made the index 'my-pets' (version 1)" in done.stderr
    assert IndexStore(tmp_path / "data" / "indexes").load("my-pets").labels() == ["cat", "dog"]
    again = CliRunner().invoke(app, words, catch_exceptions=False)
    assert "answers for the index 'my-pets'" in again.stderr
    other = str(write_folder(tmp_path / "fruit", {"fig": 5, "kiwi": 5}))
    with pytest.raises(UserError, match="has other categories"):
        CliRunner().invoke(
            app, ["finetune", other, "--name", "my-pets", *words[2:]], catch_exceptions=False
        )


def test_new_and_not_taught_categories_of_an_index_are_listed(
    app: typer.Typer, tmp_path: Path
) -> None:
    root = str(write_folder(tmp_path / "shots", {"cat": 5, "dog": 5}))
    index = CategoryIndex.build(["cat", "fig", "kiwi"], FakeEncoder(), templates="plain")
    IndexStore(tmp_path / "data" / "indexes").publish("mixed", index)
    words = ["finetune", root, "--views", "1", "--data", str(tmp_path / "data"), "--index", "mixed"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "new with this adapter: dog" in done.stderr
    assert "not taught, answered by words: fig, kiwi" in done.stderr
    alone = CliRunner().invoke(app, [*words, "--only-these"], catch_exceptions=False)
    assert "made the index 'shots' (version 1)" in alone.stderr
