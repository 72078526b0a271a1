"""The short version of `make strategy-cifar`: the same program on generated pictures."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import strategy_cifar
from benchmarks.strategy_cells import Cells, OutOfTime
from benchmarks.strategy_page import Measured, show, wins
from benchmarks.strategy_recipes import CNN, HEAD, Contest
from tests.training.samples import write_folder
from training import Dataset, Samples

COUNTS = {"cat": 10, "dog": 10, "fish": 10}


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    for name, seed in (("train", 0), ("val", 1)):
        root = write_folder(tmp_path / name, COUNTS, seed=seed)
        (tmp_path / "cifar10").mkdir(exist_ok=True)
        with zipfile.ZipFile(tmp_path / "cifar10" / f"{name}.zip", "w") as archive:
            for path in sorted(root.rglob("*.png")):
                archive.write(path, path.relative_to(root))
    return tmp_path


def short(contest: Contest) -> Contest:
    """The same with one epoch, two trials and three techniques."""
    return replace(
        contest,
        default=contest.default.replace(epochs=1),
        base=contest.base.replace(epochs=1),
        trials=2,
        budget="3s",
        rows=contest.rows[:3],
    )


def test_it_measures_goes_on_where_it_stopped_and_writes_the_page(
    cifar: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(strategy_cifar, "HEAD", short(HEAD))
    monkeypatch.setattr(strategy_cifar, "CNN", short(CNN))
    cache, page = cifar / "cache", cifar / "docs" / "page.md"
    words = ["--data", str(cifar), "--cache", str(cache)]
    assert strategy_cifar.main([*words, "--limit", "0"]) == strategy_cifar.UNFINISHED
    assert "call again" in capsys.readouterr().out
    assert strategy_cifar.main(words) in (0, 1)
    printed = capsys.readouterr().out
    cells = {path: path.stat().st_mtime_ns for path in cache.glob("*.json")}
    assert len(cells) == 2 * (2 + 1 + 3)  # checklist and search, tuned, and the three rows
    assert strategy_cifar.main([*words, "--write", str(page)]) in (0, 1)
    assert capsys.readouterr().out == printed
    assert {path: path.stat().st_mtime_ns for path in cache.glob("*.json")} == cells
    text = page.read_text(encoding="utf-8")
    for contest in (HEAD, CNN):
        assert f"## {contest.title}" in text
        assert all(f"| {row.label} |" in text for row in contest.rows[:3])
        for picture in ("checklist", "importances", "curves", "techniques"):
            assert (page.parent / f"{contest.name}-{picture}.png").stat().st_size > 1000
    assert text.count("6 read the curves") == 2
    assert "| ten crops when testing |" in text


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    """Of the rows only the first two are kept: the table ends there, and names the third."""
    labels = torch.arange(3).repeat_interleave(10)
    train = Samples(torch.rand(30, 3, 16, 16), labels, groups=torch.arange(30))
    table = Samples(torch.rand(6, 3, 16, 16), torch.arange(3).repeat(2))
    judged = strategy_cifar.Judged.of(Dataset(train, table, ("a", "b", "c")))
    contest = short(CNN)
    cells = Cells(tmp_path)
    two = replace(contest, rows=contest.rows[:2])
    whole = strategy_cifar.measure(two, judged, cells, seeds=(0, 1))
    assert not whole.missing
    part = strategy_cifar.measure(contest, judged, Cells(tmp_path, limit=0), seeds=(0, 1))
    assert part.rows == whole.rows
    assert part.missing == (contest.rows[2].label,)
    assert f"not measured yet: {contest.rows[2].label}" in show(part)
    with pytest.raises(OutOfTime):
        strategy_cifar.measure(contest, judged, Cells(tmp_path / "empty", limit=0))


def test_the_images_of_the_table_neither_train_nor_judge() -> None:
    labels = torch.arange(3).repeat_interleave(10)
    train = Samples(torch.arange(30.0)[:, None, None], labels, groups=torch.arange(30) // 2)
    table = Samples(torch.arange(100.0, 106.0)[:, None, None], torch.arange(3).repeat(2))
    judged = strategy_cifar.Judged.of(Dataset(train, table, ("a", "b", "c")))
    trains, judges = (
        set(side.inputs.flatten().tolist()) for side in (judged.inside.train, judged.inside.val)
    )
    assert trains | judges == set(range(30))
    assert not trains & judges
    assert len(judges) == 6
    assert all((number // 2 * 2 in judges) == (number in judges) for number in range(30))
    assert judged.outside is table


def test_a_cell_belongs_to_what_it_was_made_of(tmp_path: Path) -> None:
    made: list[int] = []

    def measure() -> dict[str, int]:
        made.append(len(made))
        return {"value": made[-1]}

    cells = Cells(tmp_path)
    assert cells.get("A row", ("a", 1), measure)["value"] == 0
    assert cells.get("A row", ("a", 1), measure)["value"] == 0
    assert cells.get("A row", ("a", 2), measure)["value"] == 1
    assert len(list(tmp_path.glob("a-row-*.json"))) == 2
    spent = Cells(tmp_path, limit=0)
    assert spent.get("A row", ("a", 2), measure)["value"] == 1
    with pytest.raises(OutOfTime):
        spent.get("A row", ("a", 3), measure)
    assert made == [0, 1]
    assert all("date" in json.loads(path.read_text()) for path in tmp_path.glob("*.json"))


@pytest.mark.parametrize(("tuned", "won"), [([0.6, 0.7], True), ([0.5, 0.6], False)])
def test_tuned_wins_only_if_it_is_better_on_average(tuned: list[float], won: bool) -> None:
    default = {"accuracy": [0.55, 0.55]}
    measured = Measured(
        CNN, {}, {}, {"accuracy": tuned}, [("default", default)], (), (1, 1, 1), None
    )
    assert wins(measured) is won
