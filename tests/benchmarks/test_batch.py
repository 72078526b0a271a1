"""The short version of `make bench-batch`: the same program on few made pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_it_measures_both_sides_and_the_memory(tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.batch", "--quick", "--out", out, "--cache", cache],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "batch.json").read_text(encoding="utf-8"))
    assert results["pictures"] == "made pictures"
    (row,) = results["speed"]
    assert row["model"] == "everyday"
    rates = row["images_per_second"]
    assert set(rates) == {"encoder", "decode", "run", "loop"}
    assert all(rate > 0 for rate in rates.values())
    assert row["bound"] < min(rates["encoder"], rates["decode"])
    assert [run["images"] for run in results["memory"]["runs"]] == [60, 600]
    assert all(run["peak_memory_mb"] > 50 for run in results["memory"]["runs"])
    assert "| share of the encoder's rate, everyday | 90% |" in done.stdout
    # What was made is used again, and nothing of a run is left.
    assert sorted(path.name for path in cache.iterdir()) == ["made-photos-64", "made-small-600"]
    assert [path.name for path in out.iterdir()] == ["batch.json"]


def test_decoding_on_threads_and_in_processes_is_compared() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.batch_decode", "--rounds", "1"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pictures, *lines = done.stdout.splitlines()
    assert pictures.startswith("100 made pictures")
    assert [line.split()[1] for line in lines] == ["thread", "threads", "processes"]
    assert all(float(line.split()[2]) > 0 for line in lines)
