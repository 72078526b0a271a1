"""The short version of `make eval-pictogram`: the same program on the bundled drawings."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from service.demo.__main__ import label_of, sample_paths


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    """The bundled drawings as a data folder: one style, which is the validation style."""
    rows = []
    with zipfile.ZipFile(tmp_path / "twemoji.zip", "w") as archive:
        drawn = [path for path in sample_paths() if path.suffix == ".png"]
        for number, path in enumerate(drawn):
            rows.append({"id": str(number), "name": label_of(path), "keywords": []})
            archive.write(path, f"{number}.png")
        archive.writestr("unnamed.png", b"no concept has this name: never opened")
    (tmp_path / "names.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return tmp_path


def test_it_measures_every_named_drawing(drawings: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.pictogram", "--data", str(drawings), "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (style,) = report["styles"]
    assert style["style"] == "twemoji"
    assert style["trained_on"] is False
    assert style["drawings"] == 10
    assert style["top1"] >= 0.8  # of ten names, not of all 1,765
    assert style["top1"] <= style["top5"] <= 1
    assert 0 <= style["calibration_error"] <= 1
    assert set(report["one_core_ms"]) == {"torch", "openvino"}


def test_without_data_it_says_what_it_needs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.pictogram", "--data", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        "give --data, the folder that holds names.jsonl and STYLE.zip"
    ]
