"""The embedded model's benchmark on tiny data: what is held out, which labels are right."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.embedded import Bench, Figure, calibration_error
from benchmarks.embedded_data import large_photographs, small_photographs

CLASSES = [
    ("n01", "tabby cat", ["tabby"], ["n90"]),
    ("n02", "Persian cat", ["Persian cat"], ["n90"]),
    ("n03", "umbrella", ["umbrella"], []),
]


class Colours:
    """An encoder that knows three colours and their names."""

    fingerprint = "colours"
    logit_scale = 10.0
    logit_bias = None


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "words").mkdir()
    (tmp_path / "pictograms").mkdir()
    (tmp_path / "photos").mkdir()
    rows = [
        {"index": i, "wnid": w, "name": n, "synonyms": s, "hypernyms": h}
        for i, (w, n, s, h) in enumerate(CLASSES)
    ]
    (tmp_path / "words" / "imagenet.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with gzip.open(tmp_path / "words" / "nouns.jsonl.gz", "wt") as file:
        file.write(json.dumps({"wnid": "n90", "words": ["cat", "true cat"]}) + "\n")
    concept = {"id": "1", "name": "cat", "name_ko": "고양이"}
    (tmp_path / "pictograms" / "names.jsonl").write_text(json.dumps(concept))
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "n01_tabby.jpg")
    with zipfile.ZipFile(tmp_path / "photos-256.zip", "w") as archive:
        for number in range(250):
            archive.writestr(f"x{number:03}_thing.jpg", b"")
    with zipfile.ZipFile(tmp_path / "photos-64.zip", "w") as archive:
        for number in range(30):
            archive.writestr(f"n01/{number:03}.jpg", _jpeg())
    return tmp_path


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_two_hundred_large_photographs_are_held_out_whatever_lies_beside_them(data: Path) -> None:
    truths = large_photographs(data).truths
    held = {truth.split()[-1] for truth in truths if truth.startswith("held ")}
    assert len(truths) == 251
    assert len(held) == 200
    assert held == {t.split()[-1] for t in large_photographs(data).truths if t[:5] == "held "}


def test_twenty_small_photographs_of_each_class_are_held_out(data: Path) -> None:
    pictures = small_photographs(data)
    assert pictures.truths == ["n01"] * 20
    assert pictures.images[0]().size == (4, 4)


def test_labels_name_classes_by_name_hypernym_or_synonym(data: Path) -> None:
    bench = Bench(Colours(), data)  # type: ignore[arg-type]
    right = bench._right_labels({"kitty": ["cat"], "cat": ["n90"], "brolly": ["umbrella"]})
    assert right == {
        "n01": frozenset({"kitty", "cat"}),
        "n02": frozenset({"kitty", "cat"}),
        "n03": frozenset({"brolly"}),
    }
    with pytest.raises(ValueError, match="no class is called 'dog'"):
        bench._classes_of("dog")


def test_the_calibration_error_is_the_gap_of_confidence_and_accuracy() -> None:
    confidence = np.full(100, 0.9)
    assert calibration_error(confidence, np.arange(100) < 90) == pytest.approx(0.0, abs=1e-6)
    assert calibration_error(confidence, np.arange(100) < 40) == pytest.approx(0.5)


def test_a_figure_says_whether_it_reached_what_is_wanted() -> None:
    def figure(top1: float, top5: float, wanted: tuple[float, float | None] | None) -> Figure:
        return Figure("x", 10, 10, top1, top5, 0.0, wanted)

    assert figure(0.8, 0.9, (0.8, 0.9)).reached
    assert not figure(0.8, 0.89, (0.8, 0.9)).reached
    assert figure(0.8, 0.1, (0.8, None)).reached
    assert figure(0.8, 0.1, None).reached is None


def test_every_word_of_the_committed_lists_is_written_once() -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "everyday_words.json"
    lists = json.loads(path.read_text(encoding="utf-8"))
    assert len({row["word"] for row in lists["everyday"]}) == 60
    assert len({row["korean"] for row in lists["everyday"]}) == 60
    assert [20 <= len(labels) <= 40 for labels in lists["sets"].values()] == [True] * 5
