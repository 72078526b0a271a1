"""`clipdex classify --out`."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.service.batch.makers import drawings


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_into_parquet(shell):
    drawings(shell.folder / "in", 5)
    shell.file("in/bad.png", b"nonsense")
    out = shell.folder / "r.parquet"
    options = ("--labels", "red,blue", "--out", out, "--embeddings", "column")
    told = shell("classify", shell.folder / "in", *options, code=3)
    assert told.startswith("6 images in ")
    assert told.splitlines()[-1] == str(out)
    assert "1 could not be read" in told
    rows = pq.read_table(out).to_pylist()
    assert [row["file"].rpartition("/")[2] for row in rows][-1] == "bad.png"
    assert rows[0]["label"] in ("red", "blue")
    assert rows[0]["model"].startswith("local-dir:")
    assert len(rows[0]["embedding"]) == 32


def test_an_index_and_its_version_stand_in_the_rows(shell):
    drawings(shell.folder / "in", 2)
    labels = shell.file("labels.txt", "red\nblue\n")
    shell("index", "build", "things", "--labels", labels)
    shell("index", "build", "things", "--labels", labels)
    out = shell.folder / "r.jsonl"
    summary = shell.json("classify", shell.folder / "in", "--index", "things", "--out", out)
    assert summary["files"] == [str(out)]
    assert (summary["images"], summary["failed"]) == (2, 0)
    row = json.loads(out.read_text().splitlines()[0])
    assert (row["index"], row["index_version"]) == ("things", 2)


def test_a_stopped_run_goes_on_with_the_index_version_that_it_began_with(shell):
    drawings(shell.folder / "in", 3)
    bad = shell.file("in/bad.png", b"nonsense")
    labels = shell.file("labels.txt", "red\nblue\n")
    shell("index", "build", "things", "--labels", labels)
    out = shell.folder / "r.jsonl"
    command = ("classify", shell.folder / "in", "--index", "things", "--out", out, "--strict")
    assert str(bad) in shell.fails(*command, code=3)
    shell("index", "build", "things", "--labels", shell.file("labels.txt", "green\n"))
    shell.picture("in/bad.png")
    shell(*command)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["index_version"] for row in rows} == {1}
    shell(*command)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["index_version"] for row in rows} == {2}


def test_the_same_command_gives_the_same_bytes(shell):
    drawings(shell.folder / "in", 40)
    for name in ("a.parquet", "b.parquet"):
        out = shell.folder / name
        vectors = out.with_suffix(".npy")
        shell(
            *("classify", shell.folder / "in", "--labels", "red,blue", "--out", out),
            *("--embeddings", vectors),
        )
    assert digest(shell.folder / "a.parquet") == digest(shell.folder / "b.parquet")
    assert digest(shell.folder / "a.npy") == digest(shell.folder / "b.npy")
    assert np.load(shell.folder / "a.npy").shape == (40, 32)


def test_other_settings_do_not_go_on_with_it(shell):
    shell.file("in/bad.png", b"nonsense")
    out = shell.folder / "r.csv"
    shell.fails(
        "classify", shell.folder / "in", "--labels", "a,b", "--out", out, "--strict", code=3
    )
    said = shell.fails("classify", shell.folder / "in", "--labels", "a,c", "--out", out)
    assert "other settings (labels)" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--out", "r.txt"], ".jsonl, .csv, .parquet"),
        (["--unordered"], "--out"),
        (["--embeddings", "column"], "--out"),
        (["--column", "nix"], "no column nix"),
    ],
)
def test_what_cannot_be_written(shell, options, said):
    table = shell.file("list.csv", "path\na.png\n")
    assert said in shell.fails("classify", table, "--labels", "a,b", *options)


def test_the_inputs_are_listed_once_and_before_the_model_is_loaded(shell, monkeypatch):
    from service import batch
    from service.cli import compared

    events = []
    listed, loaded = batch.list_items, compared.loaded_model

    def listing(inputs, **options):
        events.append("listed")
        return listed(inputs, **options)

    def loading(*arguments):
        events.append("model")
        return loaded(*arguments)

    monkeypatch.setattr(batch, "list_items", listing)
    monkeypatch.setattr(compared, "loaded_model", loading)
    shell.picture("photos/red.png")
    shell("classify", shell.folder / "photos", "--labels", "a,b", "--out", shell.folder / "r.csv")
    assert events == ["listed", "model"]
    assert not (shell.folder / "r.csv.partial").exists()


def test_a_model_that_cannot_be_loaded_leaves_nothing_to_resume(shell):
    image, out = shell.picture("red.png"), shell.folder / "r.csv"
    shell.fails("classify", image, "--labels", "a", "--out", out, "--model", "local-dir:/nix")
    assert [path.name for path in shell.folder.glob("r.csv*")] == []
