"""docs/training.md: every example runs, in the page's order, on a folder of generated drawings."""

from __future__ import annotations

import ast
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from benchmarks.strategy_techniques import TOPICS, techniques
from models import load_encoder
from service.cli.app import make_app
from training import (
    AdamW,
    Callback,
    Cosine,
    Cutout,
    ElasticNet,
    ImageFolder,
    Mixup,
    Patience,
    Recipe,
    RunView,
    TextHead,
    Verdict,
    checklist,
    encode,
    fit,
)
from training.parts import _PARTS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
# Times that a reader has and a test hasn't.
SHORTER = {"--trials 12": "--trials 3", "30s": "1s", '"20s"': '"2s"', "trials=6": "trials=3"}


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)
    for long, short in SHORTER.items():
        assert long in PAGE
        found = [block.replace(long, short) for block in found]
    return found


def draw(kind: str, dice: np.random.Generator) -> Image.Image:
    image = Image.new("RGB", (64, 64), tuple(dice.integers(190, 256, 3).tolist()))
    pen = ImageDraw.Draw(image)
    colour = tuple(dice.integers(0, 120, 3).tolist())
    (x, y), r = dice.integers(24, 41, 2).tolist(), int(dice.integers(12, 22))
    if kind == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    elif kind == "cross":
        pen.line((x - r, y, x + r, y), fill=colour, width=6)
        pen.line((x, y - r, x, y + r), fill=colour, width=6)
    else:
        pen.regular_polygon((x, y, r), 3, fill=colour, rotation=int(dice.integers(0, 60)))
    return image


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with shots/, away from the user's own folders."""
    dice = np.random.default_rng(0)
    for kind in ("circle", "cross", "triangle"):
        (tmp_path / "shots" / kind).mkdir(parents=True)
        for number in range(10):
            draw(kind, dice).save(tmp_path / "shots" / kind / f"{number}.png")
    for name in list(os.environ):
        if name.startswith("CLIPDEX_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLIPDEX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CLIPDEX_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_lead_from_a_folder_to_a_report(place: Path) -> None:
    commands = blocks("bash")
    assert [shlex.split(command)[1] for command in commands] == ["tune", "finetune"]
    app = make_app()
    for command in commands:
        done = CliRunner().invoke(app, shlex.split(command)[1:], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert Recipe.from_file(place / "recipe.yaml")
    assert "<h2>Checklist</h2>" in (place / "report.html").read_text(encoding="utf-8")
    assert (place / "data" / "adapters" / "shapes" / "1" / "manifest.json").exists()
    assert re.search(r"^verdict +\w+", done.stdout, re.M)


def test_the_python_examples_run_from_top_to_bottom(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks("python"):
        exec(compile(block, "docs/training.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "('circle', 'cross', 'triangle') 24 6 ()" in printed
    assert "zero-shot: " in printed
    assert "6 read the curves" in printed
    for file in ("checklist.png", "importances.png", "parallel.png", "report.html"):
        assert (place / file).stat().st_size > 1000
    assert (place / "runs" / "shapes" / "history.json").exists()
    cropped, together = names["cropped"], names["together"]
    assert isinstance(cropped, torch.Tensor)
    assert isinstance(together, torch.Tensor)
    assert cropped.sum(dim=1).tolist() == pytest.approx([1.0] * 6, abs=1e-5)
    assert set(together.tolist()) <= {0, 1, 2}


def test_the_shape_of_the_api_that_was_asked_for(place: Path) -> None:
    encoder = load_encoder("everyday")
    seen: list[str] = []

    class Watch(Callback):
        def on_fit_start(self, run: RunView) -> None:
            seen.append("start")

        def on_fit_end(self, run: RunView) -> None:
            seen.append("end")

    data = ImageFolder("shots/", val=0.2, seed=0)
    feats = encode(encoder, data, views=4)
    recipe = Recipe(
        method=TextHead(anchor="1/shots"),
        optimizer=AdamW(lr=1e-3),
        schedule=Cosine(warmup=0.05),
        penalty=ElasticNet(l1=0, l2=1e-4),
        augment=[Mixup(0.2), Cutout(0.25)],
        stop=Patience("val/loss", 5, restore_best=True),
        epochs=50,
        seed=0,
    )
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    report = checklist(recipe, feats, budget="1s")
    assert str(report).count("\n") >= 12
    assert report.plot("checklist.png").stat().st_size > 1000
    run = fit(recipe, feats, callbacks=[Watch()], resume="auto")
    assert seen == ["start", "end"]
    assert run.metrics["val/accuracy"] >= 0


def test_every_verdict_and_every_part_of_a_recipe_stands_on_the_page() -> None:
    assert all(f"| {verdict} |" in PAGE for verdict in Verdict)
    parts = {name for name, cls in _PARTS.items() if cls.__module__.startswith("training.")}
    assert len(parts) > 40
    assert {name for name in parts if not re.search(rf"\b{name}\b", PAGE)} == set()


def test_the_page_of_techniques_is_up_to_date() -> None:
    written = (ROOT / "docs" / "strategy" / "techniques.md").read_text(encoding="utf-8")
    renew = "python -m benchmarks.strategy_techniques docs/strategy/techniques.md"
    assert written == techniques(), f"renew it: {renew}"


def test_every_technique_with_a_source_is_on_the_page_of_techniques() -> None:
    """A new class or function with a formula can't be forgotten."""
    rooms = ("augment", "heads", "steps")
    topics = ("averaging", "initialisation", "layers", "losses", "optimisers", "preprocessing")
    topics += ("schedules", "stopping", "transfer")
    files = [path for room in rooms for path in (ROOT / "training" / room).glob("*.py")]
    files += [ROOT / "training" / f"{topic}.py" for topic in topics]
    cited = set()
    for path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in [tree, *tree.body]:
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and re.search(
                r"^Sources?:", ast.get_docstring(node) or "", re.M
            ):
                name = getattr(node, "name", "")
                place = str(path.relative_to(ROOT / "training"))
                cited.add(f"{place}:{name}" if name else place)
    assert len(cited) > 40
    told = {place for topic in TOPICS for _, place in topic.parts}
    # sources that several techniques share
    assert cited - told - {"steps/steps.py", "heads/cross_validation.py"} == set()
    assert all((ROOT / "tests" / test).exists() for topic in TOPICS for test in topic.tests)
