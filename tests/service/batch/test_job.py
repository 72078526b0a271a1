"""Journals, formats and what becomes of results."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from service.batch import BLOCK_SIZE, Journal, LocalEngine, Results, list_items, run_job
from service.batch.errors import JournalError, OutputError, ResumeError, RowFailedError
from service.batch.journal import work_folder
from tests.service.batch.makers import classifier, drawing, drawings


@pytest.fixture
def inputs(tmp_path):
    """Three good pictures with a damaged one between."""
    folder = tmp_path / "in"
    drawings(folder, 3)
    (folder / "00001a.png").write_bytes(b"x")
    return folder


def run(inputs, results, *, asked=None, strict=False, on_progress=None):
    made = classifier(embeddings=results.embeddings is not None)
    asked = asked or {"inputs": str(inputs)}
    with Journal.open(results.out, asked, lambda: list_items([str(inputs)])) as journal:
        engine = LocalEngine(made, journal.cache(), readers=2)
        return run_job(journal, engine, results, dim=16, strict=strict, on_progress=on_progress)


def test_json_lines(tmp_path, inputs):
    summary = run(inputs, Results(tmp_path / "r.jsonl"))
    assert summary.files == (tmp_path / "r.jsonl",)
    assert (summary.images, summary.failed, summary.duplicates, summary.resumed) == (4, 1, 0, 0)
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows] == ["red", "green", None, "blue"]
    assert "not an image" in rows[2]["error"]
    assert not work_folder(tmp_path / "r.jsonl").exists()


def test_csv(tmp_path, inputs):
    run(inputs, Results(tmp_path / "r.csv"))
    with (tmp_path / "r.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["red", "green", "", "blue"]
    assert [row["unknown"] for row in rows] == ["false", "false", "", "false"]
    assert json.loads(rows[0]["matches"])[0]["label"] == "red"
    assert json.loads(rows[0]["matches"])[0]["score"] == float(rows[0]["score"])
    assert "not an image" in rows[2]["error"]


def test_parquet_with_embeddings(tmp_path, inputs):
    run(inputs, Results(tmp_path / "r.parquet", embeddings="column"))
    run(inputs, Results(tmp_path / "r.jsonl", embeddings=tmp_path / "r.npy"))
    rows = pq.read_table(tmp_path / "r.parquet").to_pylist()
    vectors = np.load(tmp_path / "r.npy")
    assert vectors.shape == (4, 16)
    assert rows[2]["embedding"] is None
    assert np.isnan(vectors[2]).all()
    for at in (0, 1, 3):
        np.testing.assert_array_equal(np.float32(rows[at]["embedding"]), vectors[at])
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    for row, line in zip(rows, lines, strict=True):
        del row["embedding"]
        assert row == line


def test_relative_paths(tmp_path, inputs, monkeypatch):
    monkeypatch.chdir(tmp_path)
    summary = run(inputs, Results(Path("r.jsonl"), embeddings=Path("r.npy")))
    assert summary.files == (tmp_path / "r.jsonl", tmp_path / "r.npy")
    assert all(path.exists() for path in summary.files)
    run(inputs, Results(Path("r.jsonl")))
    assert (tmp_path / "r.jsonl").exists()


def test_a_large_parquet_is_cut_into_shards(tmp_path):
    drawings(tmp_path / "in", 2 * BLOCK_SIZE + 10)
    out = tmp_path / "r.parquet"
    stale = tmp_path / "r-00000-of-00007.parquet"
    other = tmp_path / "r-of-mine.parquet"
    for path in (out, stale, other):
        path.write_bytes(b"of an earlier run")
    summary = run(tmp_path / "in", Results(out, shard_rows=BLOCK_SIZE))
    names = [f"r-0000{at}-of-00003.parquet" for at in range(3)]
    assert [path.name for path in summary.files] == names
    counts = [pq.read_metadata(tmp_path / name).num_rows for name in names]
    assert counts == [BLOCK_SIZE, BLOCK_SIZE, 10]
    assert not out.exists()
    assert not stale.exists()
    assert other.exists()


def test_what_was_there_is_replaced_only_at_the_end(tmp_path, inputs):
    out = tmp_path / "r.jsonl"
    out.write_text("old")
    seen = []
    run(inputs, Results(out), on_progress=lambda _: seen.append(out.read_text()))
    assert set(seen) == {"old"}
    assert out.read_text().count("\n") == 4


def test_strict_stops_at_the_first_and_goes_on_once_it_is_mended(tmp_path, inputs):
    results = Results(tmp_path / "r.jsonl")
    with pytest.raises(RowFailedError, match=r"00001a\.png: not an image"):
        run(inputs, results, strict=True)
    assert not results.out.exists()
    (inputs / "00001a.png").write_bytes(drawing(4))
    assert run(inputs, results, strict=True).failed == 0


def test_another_run_does_not_go_on_with_what_was_left(tmp_path, inputs):
    results = Results(tmp_path / "r.jsonl")
    with pytest.raises(RowFailedError):
        run(inputs, results, asked={"labels": ["a"], "top_k": 1}, strict=True)
    with pytest.raises(ResumeError, match=r"other settings \(labels\)"):
        run(inputs, results, asked={"labels": ["b"], "top_k": 1})
    run(inputs, results, asked={"labels": ["a"], "top_k": 1})


def test_two_at_once_are_kept_apart(tmp_path, inputs):
    results = Results(tmp_path / "r.jsonl")
    with (
        Journal.open(results.out, {}, lambda: list_items([str(inputs)])),
        pytest.raises(ResumeError, match="another clipdex"),
    ):
        run(inputs, results)


def test_a_damaged_journal_is_told(tmp_path, inputs):
    results = Results(tmp_path / "r.jsonl")
    with pytest.raises(RowFailedError):
        run(inputs, results, strict=True)
    (work_folder(results.out) / "job.json").write_text("{")
    with pytest.raises(JournalError, match="delete"):
        run(inputs, results)


def test_an_input_that_cannot_be_listed_leaves_nothing_to_resume(tmp_path):
    out = tmp_path / "r.jsonl"

    def fail():
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="gone"):
        Journal.open(out, {"a": 1}, fail)
    assert not work_folder(out).exists()
    drawings(tmp_path / "in", 1)
    run(tmp_path / "in", Results(out), asked={"a": 2})


@pytest.mark.parametrize(
    ("out", "embeddings", "said"),
    [
        ("r.txt", None, ".jsonl, .csv, .parquet"),
        ("nix/r.csv", None, "in a folder"),
        ("r.csv", "column", "only a .parquet"),
        ("r.csv", "v.bin", ".npy file beside"),
        ("r.csv", "elsewhere/v.npy", ".npy file beside"),
    ],
)
def test_results_that_cannot_be_had(tmp_path, out, embeddings, said):
    place = embeddings if embeddings in (None, "column") else tmp_path / embeddings
    with pytest.raises(OutputError, match=said):
        Results(tmp_path / out, embeddings=place)
