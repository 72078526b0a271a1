from __future__ import annotations

import pytest

from indexer import CategoryIndex


@pytest.fixture
def things(shell):
    labels = shell.file("labels.csv", "label,colour\nred,#f00\nblue,#00f\n")
    assert "version 1 with 2" in shell("index", "build", "things", "--labels", labels)
    return shell


def test_build_show_and_list(things):
    shown = things.json("index", "show", "things")
    assert (shown["version"], shown["versions"], shown["count"]) == (1, [1], 2)
    assert shown["manifest"]["templates"]["name"] == "everyday"
    assert "templates.name" in things("index", "show", "things")
    listed = things.json("index", "list")
    assert [item["name"] for item in listed] == ["things"]
    assert "things" in things("index", "list")


def test_own_templates_and_sets(things):
    labels = things.file("labels.txt", "red\nblue\n")
    build = ("index", "build", "things", "--labels", labels)
    things(*build, "--templates", "plain")
    assert things.json("index", "show", "things")["manifest"]["templates"]["texts"] == ["{}"]
    things(*build, "--templates", "a {}", "--templates", "one {}")
    templates = things.json("index", "show", "things")["manifest"]["templates"]
    assert templates == {"name": None, "texts": ["a {}", "one {}"]}


def test_add_and_remove(things):
    more = things.file("more.txt", "green\nwhite\n")
    things("index", "add", "things", "black", "--labels", more)
    things("index", "remove", "things", "red", "blue")
    assert things.json("index", "show", "things")["version"] == 3
    index = CategoryIndex.load(things.folder / "data/indexes/things/3")
    assert index.labels() == ["black", "green", "white"]


def test_rollback_and_delete(things):
    things("index", "add", "things", "green")
    things("index", "rollback", "things")
    assert things.json("index", "show", "things")["version"] == 1
    things("index", "rollback", "things", "--version", "2")
    assert things.json("index", "show", "things")["version"] == 2
    assert things.json("index", "delete", "things") == {"name": "things", "deleted": True}
    assert things.json("index", "list") == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["build", "x"], "--labels FILE"),
        (["build", "x", "--labels", "nix.txt"], "nix.txt"),
        (["build", "../x", "--labels", "LABELS"], "can't name an index"),
        (["build", "x", "--labels", "LABELS", "--recall", "2"], "recall"),
        (["build", "x", "--labels", "LABELS", "--templates", "nix"], "no template set"),
        (["show", "nix"], "no index is called 'nix'"),
        (["show", "things", "--version", "9"], "no version 9"),
        (["add", "things"], "say what to add"),
        (["add", "things", "red"], "red"),
        (["add", "nix", "red"], "no index is called 'nix'"),
        (["remove", "things", "nix"], "nix"),
        (["rollback", "things"], "no version before 1"),
        (["delete", "nix"], "no index is called 'nix'"),
    ],
)
def test_what_cannot_be_done(things, arguments, said):
    labels = str(things.file("labels.txt", "red\nblue\n"))
    given = [labels if argument == "LABELS" else argument for argument in arguments]
    assert said in things.fails("index", *given)
    assert things.json("index", "show", "things")["version"] == 1


def test_nothing_is_left_of_a_build_that_failed(things):
    labels = things.file("labels.txt", "red\n" + "very " * 90 + "long\n")
    assert "tokens" in things.fails("index", "build", "new", "--labels", labels)
    assert [item["name"] for item in things.json("index", "list")] == ["things"]


def test_another_models_index_is_refused(things, monkeypatch):
    monkeypatch.setenv("CLIPDEX_MODEL", "everyday")
    image = things.picture("red.png")
    assert "with the model in use" in things.fails("classify", image, "--index", "things")
    assert "with the model in use" in things.fails("index", "add", "things", "green")
