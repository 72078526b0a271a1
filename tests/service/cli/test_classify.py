from __future__ import annotations

import json

import pytest


def test_adhoc_labels(shell):
    image = shell.picture("red.png")
    line = shell("classify", image, "--labels", "red,blue", "--top-k", "1")
    assert line.startswith(f"{image}: ")
    assert line.count("\n") == 1
    assert "%" in line


def test_json_is_one_object_an_image_in_the_order_of_the_paths(shell):
    first, second = shell.picture("b.png", "blue"), shell.picture("a.png", "red")
    lines = shell("classify", first, second, "--labels", "red,blue,green", "--json").splitlines()
    results = [json.loads(line) for line in lines]
    assert [result["file"] for result in results] == [str(first), str(second)]
    assert [len(result["matches"]) for result in results] == [3, 3]
    assert list(results[0]["matches"][0]) == ["label", "score", "probability", "rank"]


def test_a_named_index_and_a_folder(shell):
    labels = shell.file("labels.txt", "red\nblue\n")
    shell("index", "build", "things", "--labels", labels)
    for name in ("photos/b.png", "photos/inside/a.PNG", "photos/notes.txt"):
        shell.picture(name)
    results = shell("classify", shell.folder / "photos", "--index", "things", "--json")
    names = [json.loads(line)["file"] for line in results.splitlines()]
    assert [name.removeprefix(f"{shell.folder}/photos/") for name in names] == [
        "b.png",
        "inside/a.PNG",
    ]


def test_the_default_index_is_built_when_there_is_none(shell):
    image = shell.picture("red.png")
    shell("classify", image)
    assert [item["name"] for item in shell.json("index", "list")] == ["default"]
    version = shell.json("index", "show", "default")["version"]
    shell("classify", image)
    assert shell.json("index", "show", "default")["version"] == version


def test_an_image_that_cannot_be_read_does_not_stop_the_others(shell):
    good, bad = shell.picture("good.png"), shell.file("bad.png", b"nonsense")
    out = shell("classify", bad, good, "--labels", "red,blue", code=3)
    assert out.startswith(f"{good}: ")
    assert f"error: {bad}: not an image" in shell.err
    lines = shell("classify", bad, good, "--labels", "red,blue", "--json", code=3).splitlines()
    assert "error" in json.loads(lines[0])
    assert "matches" in json.loads(lines[1])


def test_unknown_is_said(shell):
    image = shell.picture("red.png")
    options = ("--labels", "red,blue", "--min-probability", "1")
    assert "unknown" in shell("classify", image, *options)
    assert json.loads(shell("classify", image, *options, "--json"))["unknown"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--index", "nix"], "no index is called 'nix'"),
        (["--labels", "a,a"], "occurs twice"),
        (["--labels", "a", "--templates", "nix"], "no template set"),
        (["--labels", "a", "--top-k", "0"], "error: --top-k: "),
        (["--labels", "nix.txt"], "nix.txt doesn't exist"),
        (["--labels", "./nix"], "./nix doesn't exist"),
        (["--labels", "a", "--index", "b"], "not both"),
        (["--labels", "a", "--model", "local-dir:/nix"], "/nix"),
    ],
)
def test_what_cannot_be_asked(shell, options, said):
    assert said in shell.fails("classify", shell.picture("red.png"), *options)


def test_paths_without_images(shell):
    empty = shell.folder / "empty"
    empty.mkdir()
    assert "doesn't exist" in shell.fails("classify", shell.folder / "nix.png", "--labels", "a")
    assert "holds no images" in shell.fails("classify", empty, "--labels", "a")


def test_labels_from_a_file(shell):
    labels = shell.file("fruit.csv", "label,synonyms\nred,scarlet\nblue,\ngreen,\n")
    answer = shell.json("classify", shell.picture("red.png"), "--labels", labels)
    assert {match["label"] for match in answer["matches"]} == {"red", "blue", "green"}


def test_words_that_only_resemble_a_path_are_labels(shell):
    answer = shell.json("classify", shell.picture("red.png"), "--labels", "and/or,main.txt")
    assert {match["label"] for match in answer["matches"]} == {"and/or", "main.txt"}


def test_a_misspelt_index_suggests_the_closest(shell):
    shell("index", "build", "things", "--labels", shell.file("labels.txt", "red\nblue\n"))
    said = shell.fails("classify", shell.picture("red.png"), "--index", "thigns")
    assert "did you mean 'things'?" in said


def test_both_names_of_the_wanted_precision(shell):
    image = shell.picture("red.png")
    for name in ("--target-precision", "--precision"):
        said = shell.fails("classify", image, "--labels", "red,blue", name, "0.9")
        assert "calibrat" in said


def test_errors_of_the_command_line_do_not_speak_of_http(shell, monkeypatch):
    monkeypatch.setenv("CLIPDEX_MAX_LABELS", "1")
    said = shell.fails("classify", shell.picture("red.png"), "--labels", "red,blue")
    assert "the most is 1" in said
    assert "/v1" not in said
    assert "request" not in said


def test_labels_that_the_model_cannot_read_are_named(shell):
    shell("classify", shell.picture("red.png"), "--labels", "red,\uc0ac\uacfc")
    assert "warning: " in shell.err
    assert "\uc0ac\uacfc" in shell.err
