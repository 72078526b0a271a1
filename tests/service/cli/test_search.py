from __future__ import annotations

import pytest


@pytest.fixture
def photos(shell):
    for colour in ("red", "blue", "green"):
        shell.picture(f"photos/{colour}.png", colour)
    shell.file("photos/broken.png", b"nonsense")
    shell("index", "build", "photos", "--images", shell.folder / "photos")
    assert "skipped broken.png: not an image" in shell.err
    return shell


def test_an_image_finds_itself_and_words_find_something(photos):
    found = photos.json("search", "photos", photos.folder / "photos/blue.png", "--top-k", "2")
    assert found["matches"][0]["path"] == "blue.png"
    assert found["matches"][0]["score"] == pytest.approx(1, abs=1e-4)
    assert len(found["matches"]) == 2
    assert found["folder"] == str(photos.folder / "photos")
    assert photos("search", "photos", "a red car").count("\n") == 4


def test_show_says_what_it_holds(photos):
    shown = photos.json("index", "show", "photos")
    assert (shown["kind"], shown["count"]) == ("images", 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search", "nix", "red"], "no index is called 'nix'"),
        (["search", "photos", " "], "empty"),
        (["search", "photos", "very " * 90], "tokens"),
        (["search", "photos", "red", "--top-k", "0"], "--top-k"),
        (["search", "photos", "missing.png"], "missing.png doesn't exist"),
        (["search", "photos", "./missing"], "./missing doesn't exist"),
        (["classify", "IMAGE", "--index", "photos"], "images"),
        (["index", "add", "photos", "red"], "images"),
        (["index", "build", "x", "--images", "nix"], "nix"),
        (["index", "build", "x", "--images", ".", "--templates", "plain"], "--templates"),
    ],
)
def test_what_cannot_be_done(photos, arguments, said):
    image = str(photos.folder / "photos/red.png")
    given = [image if argument == "IMAGE" else argument for argument in arguments]
    assert said in photos.fails(*given)
