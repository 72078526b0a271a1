"""`clipdex finetune`, `clipdex adapters ...` and `clipdex classify` of what they promote."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.adapters.bindings import Bindings
from tests.service.finetuning.shots import shots


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
    assert "in use" in shell.fails("adapters", "export", "own", "--version", 1, "--out", out)


def test_bindings_are_files_that_every_process_sees(tmp_path):
    bindings = Bindings(tmp_path / "adapters")
    assert bindings.active("words") is None
    assert bindings.indexes("own") == []
    bindings.bind("words", "own")
    bindings.bind("things", "own")
    bindings.bind("other", "else")
    assert Bindings(tmp_path / "adapters").indexes("own") == ["things", "words"]
    bindings.unbind("words")
    bindings.unbind("words")
    assert bindings.active("words") is None
    assert bindings.live("own") is None
