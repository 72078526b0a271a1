from __future__ import annotations

import pytest
from PIL import Image

from indexer import (
    BrokenIndexError,
    ImageFolderError,
    ImageIndex,
    IndexStore,
    LayoutOptions,
    PromptCache,
    WrongModelError,
)
from tests.indexer.fakes import HashEncoder

COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "sub/blue": (0, 0, 200)}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pictures"
    for name, colour in COLOURS.items():
        path = root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 9), colour).save(path)
    (root / "notes.txt").write_text("no image")
    (root / ".hidden.png").write_bytes(b"")
    return root


@pytest.fixture
def encoder():
    return HashEncoder()


def colour(encoder, name):
    return encoder.encode_images([Image.new("RGB", (12, 9), COLOURS[name])])


def test_images_are_found_by_an_image_with_path_and_size(folder, encoder):
    index = ImageIndex.build(folder, encoder)
    assert len(index) == 3
    assert index.folder == folder
    first, *others = index.search(colour(encoder, "sub/blue"), 5)[0]
    assert (first.path, first.rank, first.width, first.height) == ("sub/blue.png", 1, 12, 9)
    assert first.score == pytest.approx(1, abs=1e-5)
    assert sorted(match.path for match in others) == ["green.png", "red.png"]


def test_bad_files_are_told_and_the_rest_is_indexed(folder, encoder):
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no jpeg")
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes((folder / "red.png").read_bytes()[:40])
    (folder / "gone.png").symlink_to("nowhere")
    told = []
    index = ImageIndex.build(folder, encoder, on_skip=told.append)
    assert len(index) == 3
    assert sorted(skipped.path for skipped in told) == [
        "broken.jpg",
        "cut.png",
        "empty.png",
        "gone.png",
    ]
    assert all(skipped.reason for skipped in told)


def test_folders_without_images(tmp_path, encoder):
    with pytest.raises(ImageFolderError, match="is not a folder"):
        ImageIndex.build(tmp_path / "none", encoder)
    with pytest.raises(ImageFolderError, match="holds no image files"):
        ImageIndex.build(tmp_path, encoder)
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(ImageFolderError, match=r"no image in .* can be read"):
        ImageIndex.build(tmp_path, encoder)


def test_only_new_files_are_encoded_again(folder, encoder, tmp_path):
    cache = PromptCache(tmp_path / "cache.sqlite3")
    first = ImageIndex.build(folder, encoder, cache=cache)
    (folder / "copy of red.png").write_bytes((folder / "red.png").read_bytes())
    Image.new("RGB", (3, 3), "white").save(folder / "white.png")
    seen = []

    class Counting(HashEncoder):
        def encode_images(self, images):
            seen.append(len(images))
            return super().encode_images(images)

    second = ImageIndex.build(folder, Counting(), cache=cache)
    assert seen == [1]
    assert len(second) == 5
    query = colour(encoder, "green")
    assert first.search(query, 1)[0][0].score == second.search(query, 1)[0][0].score


def test_published_loaded_and_checked_like_any_other(folder, encoder, tmp_path):
    store = IndexStore(tmp_path / "indexes")
    store.publish("pictures", ImageIndex.build(folder, encoder))
    info = store.info("pictures")
    assert (info.manifest.kind, info.manifest.count) == ("images", 3)
    loaded = store.load_images("pictures", fingerprint=encoder.fingerprint)
    assert loaded.search(colour(encoder, "red"), 1)[0][0].path == "red.png"
    assert loaded.record(0).path == "green.png"
    with pytest.raises(BrokenIndexError, match="an index of images, not of categories"):
        store.load("pictures")
    with pytest.raises(WrongModelError):
        store.load_images("pictures", fingerprint="b" * 64)
    path = store.root / "pictures" / "1" / "images.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BrokenIndexError, match=r"images\.parquet"):
        store.load_images("pictures")


def test_many_images_go_into_lists(tmp_path, encoder):
    for number in range(300):
        Image.new("RGB", (8, 8), (number % 256, number // 256, 7)).save(tmp_path / f"{number}.png")
    index = ImageIndex.build(tmp_path, encoder, options=LayoutOptions(exact_up_to=100))
    assert index.manifest.layout.type == "ivf"
    assert index.manifest.layout.measured[0].probability_error is None
    query = encoder.encode_images([Image.new("RGB", (8, 8), (43, 1, 7))])
    assert index.search(query, 2)[0][0].path == "299.png"
    everything = index.search(query, 300)[0]
    assert sorted(match.path for match in everything) == sorted(f"{n}.png" for n in range(300))
