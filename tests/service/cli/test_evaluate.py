from __future__ import annotations

import csv
import json
import re

import pytest
from PIL import Image

from indexer import IndexStore
from tests.service.fakes import COLOURS


@pytest.fixture
def labelled(shell):
    """60 images of three colours, a list of them, and an index of the colours."""
    shell("index", "build", "colours", "--labels", shell.file("l.txt", "red\nblue\ngreen\n"))
    rows = []
    for number in range(60):
        label = ("red", "blue", "green")[number % 3]
        path = shell.folder / "images" / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shade = tuple(min(255, value + number) for value in COLOURS[label])
        Image.new("RGB", (40, 40), shade).save(path)
        rows.append((f"images/{label}/{number}.png", label))
    with (shell.folder / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    return shell


def test_a_folder_and_a_list_give_the_same_figures(labelled):
    by_folder = labelled.json("eval", labelled.folder / "images", "--index", "colours")
    by_list = labelled.json("eval", labelled.folder / "list.csv", "--index", "colours")
    assert (by_folder["images"], by_folder["labels"], by_folder["categories"]) == (60, 3, 3)
    assert by_folder["top5"] == 1.0
    for name in ("top1", "top5"):
        assert by_folder[name] == by_list[name]
    text = labelled("eval", labelled.folder / "images", "--index", "colours")
    assert f"{by_folder['top1']:.1%}" in text
    assert "expected calibration error" in text


def test_the_report_holds_all_and_loads_nothing(labelled):
    report, out = labelled.folder / "report.html", labelled.folder / "eval.json"
    labelled.file("images/red/broken.png", b"nonsense")
    images = labelled.folder / "images"
    labelled("eval", images, "--index", "colours", "--report", report, "--out", out)
    assert "skipped red/broken.png" in labelled.err
    facts = json.loads(out.read_text(encoding="utf-8"))
    page = report.read_text(encoding="utf-8")
    assert f"{facts['top1']:.1%}" in page
    assert page.count("<svg") == 2 + bool(facts["confusions"])
    assert page.count("<img") == len(facts["mistakes"])
    assert "broken.png" in page
    assert "<script" not in page
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []


def test_calibrating_publishes_a_version_that_answers_with_a_precision(labelled):
    image = labelled.folder / "images/red/0.png"
    asked = ("classify", image, "--index", "colours", "--precision", "0.1")
    assert "isn't calibrated" in labelled.fails(*asked)
    images = labelled.folder / "images"
    found = labelled.json("eval", images, "--index", "colours", "--calibrate")
    assert (found["index_version"], found["images"]) == (2, 30)
    index = IndexStore(labelled.folder / "data/indexes").load("colours")
    assert index.manifest.calibration is not None
    assert index.manifest.calibration.images == 30
    assert "calibration.temperature" in labelled("index", "show", "colours")


@pytest.mark.parametrize(
    ("source", "index", "said"),
    [
        ("images", "nix", "no index is called 'nix'"),
        ("nowhere", "colours", "nowhere"),
        ("l.txt", "colours", "neither a folder"),
        ("other", "colours", "no category 'purple'"),
    ],
)
def test_what_cannot_be_evaluated(labelled, source, index, said):
    labelled.picture("other/purple/a.png")
    assert said in labelled.fails("eval", labelled.folder / source, "--index", index)


def test_too_few_images_to_calibrate_on_change_nothing(labelled):
    for number in range(5):
        labelled.picture(f"few/red/{number}.png")
    few = labelled.folder / "few"
    said = labelled.fails("eval", few, "--index", "colours", "--calibrate")
    assert "at least 40 images" in said
    assert labelled.json("index", "show", "colours")["version"] == 1
