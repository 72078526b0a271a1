"""`clipdex finetune`, `clipdex adapters ...` and `clipdex classify` of what they promote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.serving.assignments import Assignments
from tests.service.finetuning.shots import shot, shots


@pytest.fixture
def words(shell) -> Path:
    """A data folder with an index, and labelled images for it."""
    for path, picture in shots(8).items():
        shell.file(f"shots/{path}", picture)
    labels = shell.file("labels.txt", "zorp\nquix\nblim\nyellow\n")
    shell("index", "build", "words", "--labels", labels, "--templates", "plain")
    return shell.folder / "shots"


def test_from_a_folder_to_an_answer_and_back(shell, words):
    report = shell.folder / "report.html"
    made = shell.json(
        *("finetune", words, "--index", "words", "--method", "gda", "--views", 1),
        *("--val", 0.5, "--report", report),
    )
    assert (made["adapter"], made["version"], made["index"]) == ("words", 1, "words")
    assert (made["method"], made["changes"]) == ("gda", "head")
    assert report.exists()
    [listed] = shell.json("adapters", "list")
    assert (listed["name"], listed["live"], listed["versions"]) == ("words", None, [1])
    assert "words" in shell("adapters", "list")
    shown = shell.json("adapters", "show", "words")
    assert shown["prompts"]["zorp"] == ["zorp"]  # the index's templates
    assert "tuned.top1" in shell("adapters", "show", "words")
    moved = shell.json("adapters", "promote", "words", "--force")
    assert moved == {"name": "words", "version": 1, "indexes": ["words"]}
    assert "words@1 answers for words" in shell("adapters", "promote", "words", "--force")
    assert shell.json("adapters", "show", "words")["indexes"] == ["words"]
    assert "zero-shot answers for words" in shell("adapters", "rollback", "words")
    assert shell.json("adapters", "list")[0]["indexes"] == []
    assert "nothing to merge" in shell.fails(
        "adapters", "export", "words", "--version", 1, "--out", shell.folder / "out"
    )


def test_mistakes_are_one_line(shell, words):
    assert "no adapter is called 'nobody'" in shell.fails("adapters", "show", "nobody")
    assert "no adapter is called 'nobody'" in shell.fails("adapters", "promote", "nobody")
    assert "no adapter is called 'nobody'" in shell.fails("adapters", "rollback", "nobody")
    assert "nowhere" in shell.fails("finetune", words, "--index", "nowhere")
    assert "method must be one of" in shell.fails(
        "finetune", words, "--index", "words", "--method", "magic"
    )


def row_of(shell, *arguments):
    """The one row that a command prints."""
    return shell.json("classify", shell.folder / "zorp.png", *arguments)


def test_classify_answers_with_what_was_taught(shell, words):
    shell.file("zorp.png", shot("red", 99))
    for method in ("gda", "head"):
        shell(
            *("finetune", words, "--index", "words", "--method", method, "--views", 1),
            *("--val", 0.5, "--report", shell.folder / "report.html"),
        )
    ask = ("--index", "words", "--top-k", 4)
    zero = row_of(shell, *ask)
    assert "adapter" not in zero
    first = row_of(shell, *ask, "--adapter", "words@1")
    assert first["adapter"] == "words@1"
    assert first["matches"] != zero["matches"]
    assert "has not been promoted" in shell.fails(
        "classify", shell.folder / "zorp.png", *ask, "--adapter", "words"
    )
    shell("adapters", "promote", "words", "--version", 1, "--force")
    assert row_of(shell, *ask) == row_of(shell, *ask, "--adapter", "words") == first
    assert row_of(shell, *ask, "--adapter", "none") == zero
    assert "words@1" in shell.fails(
        "classify", shell.folder / "zorp.png", *ask, "--precision", "0.9"
    )
    shell("adapters", "rollback", "words")
    assert row_of(shell, *ask) == zero
    shell("adapters", "promote", "words", "--version", 1, "--force")
    shell("index", "delete", "words")
    assert shell.json("adapters", "list")[0]["indexes"] == []


def test_a_stopped_run_goes_on_with_the_adapter_that_it_began_with(shell, words):
    shell.file("in/zorp.png", shot("red", 99))
    bad = shell.file("in/bad.png", b"nonsense")
    for _ in range(2):
        shell(
            *("finetune", words, "--index", "words", "--method", "gda", "--views", 1),
            *("--val", 0.5, "--report", shell.folder / "report.html"),
        )
    shell("adapters", "promote", "words", "--version", 1, "--force")
    out = shell.folder / "rows.jsonl"
    command = ("classify", shell.folder / "in", "--index", "words", "--out", out)
    assert str(bad) in shell.fails(*command, "--strict", code=3)
    shell("adapters", "promote", "words", "--version", 2, "--force")
    shell.picture("in/bad.png")
    for adapter in ("words@1", "words@2"):
        shell(*command)
        assert {json.loads(line)["adapter"] for line in out.read_text().splitlines()} == {adapter}


def test_adapters_that_classify_cannot_use(shell, words):
    picture = shell.picture("a.png")
    for asked, said in (("nobody", "no adapter"), ("no/body", "NAME@VERSION"), ("w@0", "NAME@")):
        options = ("--index", "words", "--adapter", asked)
        assert said in shell.fails("classify", picture, *options)
    assert "not with labels" in shell.fails("classify", picture, "--labels", "a", "--adapter", "x")


@pytest.mark.slow
def test_a_model_of_its_own_is_exported(shell, words, tiny_clip_dir):
    made = shell.json(
        *("finetune", words, "--index", "words", "--method", "partial", "--name", "own"),
        *("--views", 1, "--val", 0.5, "--report", shell.folder / "report.html"),
    )
    assert made["changes"] == "weights"
    out = shell.folder / "out"
    told = shell.json("adapters", "export", "own", "--version", 1, "--out", out)
    assert told["model"] == f"local-dir:{out}"
    before = shell.json("models", "show", f"local-dir:{tiny_clip_dir}")
    after = shell.json("models", "show", f"local-dir:{out}")
    assert after["fingerprint"] != before["fingerprint"]
    picture = shell.file("zorp.png", shot("red", 99))
    ask = ("classify", picture, "--index", "words", "--top-k", 4)
    shell(*ask, "--adapter", "own@1", "--out", shell.folder / "rows.jsonl")
    taught = json.loads((shell.folder / "rows.jsonl").read_text())
    assert (taught["adapter"], taught["index_version"]) == ("own@1", 1)
    assert taught["model"] == f"local-dir:{tiny_clip_dir}"
    # The exported model with an index of its own gives the same answers.
    labels = shell.folder / "labels.txt"
    theirs = ("--model", f"local-dir:{out}")
    shell("index", "build", "theirs", "--labels", labels, "--templates", "plain", *theirs)
    asked = shell.json("classify", picture, "--index", "theirs", "--top-k", 4, *theirs)
    assert asked["matches"] == taught["matches"]
    assert "in use" in shell.fails("adapters", "export", "own", "--version", 1, "--out", out)


def test_assignments_are_files_that_every_process_sees(tmp_path):
    assignments = Assignments(tmp_path / "adapters")
    assert assignments.adapter_of("words") is None
    assert assignments.indexes_of("own") == []
    assignments.assign("words", "own")
    assignments.assign("things", "own")
    assignments.assign("other", "else")
    assert Assignments(tmp_path / "adapters").indexes_of("own") == ["things", "words"]
    assignments.unassign("words")
    assignments.unassign("words")
    assert assignments.adapter_of("words") is None
    assert assignments.current_version("own") is None
