from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.finetune_page import Cell, passed, tables, write_page
from benchmarks.finetune_proof import CIFAR, KINDS, SHOTS, Task, main, measure
from tests.training.samples import features
from training.finetune import METHODS
from training.names import AUTO


@pytest.fixture(scope="module")
def task() -> Task:
    pool = features(shots=24, val=40, noise=1.0, text_noise=2.5)
    return Task("made up", replace(pool, val=pool.val.pick([])), pool.val)


@pytest.fixture(scope="module")
def cells(task: Task) -> list[Cell]:
    torch.set_num_threads(1)
    return [measure(task, method, shots, 0) for method in (AUTO, "gda") for shots in (1, 8)]


def test_support_sets_are_balanced_and_differ_by_seed(task: Task) -> None:
    first, second = task.support(3, 0), task.support(3, 1)
    assert first.counts == second.counts == [3, 3, 3, 3]
    assert not torch.equal(first.train.inputs, second.train.inputs)
    assert torch.equal(first.train.inputs, task.support(3, 0).train.inputs)
    assert len(first.val) == 0


def test_every_head_method_has_a_cell(task: Task) -> None:
    for method in METHODS:
        cell = measure(task, method, 2, 0)
        assert len(cell.right) == len(cell.zero) == len(task.test)
        assert cell.accuracy > 0.25


def test_the_default_rises_and_stays_above_zero_shot(cells: list[Cell]) -> None:
    lines: list[str] = []
    assert passed(cells, report=lines.append)
    assert len(lines) == 3
    worse = [replace(c, right="0" * len(c.right)) if c.method == AUTO else c for c in cells]
    assert not passed(worse, report=lines.append)
    assert "BELOW ZERO-SHOT" in "".join(lines)
    assert not passed([replace(c, shots=9 - c.shots) for c in cells], report=lines.append)
    assert "DOES NOT RISE" in lines[-1]


def test_cells_and_pages(cells: list[Cell], tmp_path: Path) -> None:
    cells[0].write(tmp_path / "deep" / "cell.json")
    assert Cell.read(tmp_path / "deep" / "cell.json") == cells[0]
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- finetune-proof -->\nold\n<!-- /finetune-proof -->\nafter\n")
    for _ in range(2):
        write_page(page, cells, date(2026, 11, 21))
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert text.count("**auto** (the default)") == 1
    assert "Measured on 2026-11-21." in text
    assert "| 1 shot | 8 shots |" in tables(cells)


def data_of_its_own(root: Path) -> Path:
    """The folders that the proof reads, with noise in them and few images a class."""
    dice = np.random.default_rng(0)

    def noise() -> bytes:
        out = io.BytesIO()
        Image.fromarray(dice.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(out, "PNG")
        return out.getvalue()

    for folder in ("cifar10", "pictograms"):
        (root / folder).mkdir(parents=True)
    for side in ("train", "val"):
        with zipfile.ZipFile(root / "cifar10" / f"{side}.zip", "w") as archive:
            for name in CIFAR:
                for number in range(3):
                    archive.writestr(f"{name}/{number}.png", noise())
    rows = [
        {"id": f"{kind}-{number}", "name": f"{kind} {number}", "keywords": [kind]}
        for kind in (*KINDS, "nothing")
        for number in range(max(SHOTS) + 2)
    ]
    names = root / "pictograms" / "names.jsonl"
    names.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with zipfile.ZipFile(root / "pictograms" / "twemoji.zip", "w") as archive:
        for row in rows:
            archive.writestr(f"twemoji/{row['id']}.png", noise())
    return root


@pytest.mark.slow
def test_the_whole_proof_and_again_from_what_it_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- finetune-proof -->\n<!-- /finetune-proof -->\n")
    options = ["--data", str(data_of_its_own(tmp_path / "data")), "--page", str(page)]
    options += ["--cache", str(tmp_path / "cache"), "--shots", "1", "2", "--seeds", "0"]
    options += ["--methods", "gda", "auto", "--jobs", "2"]
    threads = torch.get_num_threads()
    try:
        verdict = main(options)
        first = capsys.readouterr()
        assert "16/16" in first.err
        for task in ("cifar10", "twemoji", "twemoji-own-words"):
            assert f"**{task}**: zero-shot" in first.out
        assert first.out.count("| gda |") == 4
        assert "| gda |" in page.read_text()
        assert main(options) == verdict
        again = capsys.readouterr()
        assert again.out == first.out
        assert "/16" not in again.err
    finally:
        torch.set_num_threads(threads)
