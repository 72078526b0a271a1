from __future__ import annotations

import io
import os
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.batch import Item, list_items
from service.batch.errors import InputError


@pytest.fixture
def tree(tmp_path):
    names = ["b/2.png", "b/10.JPG", "a.png", "b.png", "c/deep/1.webp", "notes.md", "c/list.txt"]
    for name in names:
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "tree"


def names(*inputs, column=None):
    return [item.name for item in list_items([str(place) for place in inputs], column=column)]


def test_a_folder_is_listed_with_its_subfolders_in_the_order_of_names(tree):
    found = [name.removeprefix(f"{tree}/") for name in names(tree)]
    assert found == ["a.png", "b/10.JPG", "b/2.png", "b.png", "c/deep/1.webp"]


def test_a_link_in_a_circle_ends(tree):
    (tree / "b" / "up").symlink_to(tree)
    assert len(names(tree)) == 5


def test_patterns(tree):
    assert names(tree / "*.png") == [str(tree / "a.png"), str(tree / "b.png")]
    assert names(tree / "**" / "?.webp") == [str(tree / "c/deep/1.webp")]
    # A pattern finds what the user says, whatever its ending; a list among it is opened.
    assert names(tree / "*.md") == [str(tree / "notes.md")]


def test_a_file_with_the_characters_of_a_pattern_is_that_file(tmp_path):
    path = tmp_path / "a[1].png"
    path.write_bytes(b"x")
    assert names(path) == [str(path)]


def test_inputs_come_in_their_order_and_twice_if_named_twice(tree):
    a, b = tree / "a.png", tree / "b.png"
    assert names(b, a, b) == [str(b), str(a), str(b)]


def test_lines_of_text_are_relative_to_their_list(tree):
    (tree / "c" / "list.txt").write_text("\ufeffdeep/1.webp\n\n  ../a.png \n/abs.png\ns3://x/y.png")
    assert names(tree / "c" / "list.txt") == [
        f"{tree}/c/deep/1.webp",
        f"{tree}/c/../a.png",
        "/abs.png",
        "s3://x/y.png",
    ]


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_columns_of_paths(tmp_path, ending):
    path = tmp_path / f"table.{ending}"
    rows = {
        "id": ["1", "2", "3"],
        "file_name": ["a.png", "", "sub/b.png"],
        "other": ["x", "y", "z"],
    }
    if ending == "parquet":
        pq.write_table(pa.table(rows), path)
    else:
        mark = "\t" if ending == "tsv" else ","
        lines = [rows.keys(), *zip(*rows.values(), strict=True)]
        path.write_text("\n".join(mark.join(line) for line in lines), encoding="utf-8")
    items = list(list_items([str(path)]))
    assert [item.name for item in items] == [
        f"{tmp_path}/a.png",
        f"{path}#2",
        f"{tmp_path}/sub/b.png",
    ]
    assert [item.error for item in items] == [None, "row 2 names no file", None]
    assert names(path, column="other")[0] == f"{tmp_path}/x"
    with pytest.raises(InputError, match="no column nix; it has id, file_name, other"):
        names(path, column="nix")


def shard(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_shards_give_byte_ranges_of_their_images(tmp_path):
    members = {"1.jpg": b"first", "1.cls": b"3", "2.PNG": b"second one", "2.json": b"{}"}
    shard(tmp_path / "s.tar", members)
    items = list(list_items([str(tmp_path / "s.tar")]))
    assert [item.name for item in items] == [f"{tmp_path}/s.tar/1.jpg", f"{tmp_path}/s.tar/2.PNG"]
    data = (tmp_path / "s.tar").read_bytes()
    assert [data[i.start : i.start + i.size] for i in items] == [b"first", b"second one"]


def test_a_damaged_shard_is_an_item_with_an_error_after_what_was_found(tmp_path):
    path = tmp_path / "s.tar"
    shard(path, {"1.jpg": b"x" * 600, "2.jpg": b"y" * 600, "3.jpg": b"z" * 600})
    path.write_bytes(path.read_bytes()[: 512 + 1024 + 512 + 300])
    items = list(list_items([str(path)]))
    assert [item.name for item in items] == [f"{path}/1.jpg", f"{path}/2.jpg", str(path)]
    assert "damaged" in items[2].error
    path.write_bytes(b"no archive at all" * 100)
    assert [item.error is None for item in list_items([str(path)])] == [False]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_hugging_face_image_folders_are_listed_by_their_metadata(tmp_path, kind):
    train = tmp_path / "data" / "train"
    train.mkdir(parents=True)
    for name in ("1.png", "2.png", "not listed.png"):
        (train / name).write_bytes(b"x")
    (tmp_path / "data" / "test").mkdir()
    (tmp_path / "data" / "test" / "9.png").write_bytes(b"x")
    listed = ["2.png", "missing.png", "1.png"]
    if kind == "csv":
        (train / "metadata.csv").write_text("file_name,label\n2.png,a\nmissing.png,b\n1.png,c\n")
    elif kind == "jsonl":
        lines = [f'{{"file_name": "{name}"}}' for name in listed]
        (train / "metadata.jsonl").write_text("\n".join([*lines, '{"nothing": 1}', ""]))
    else:
        pq.write_table(pa.table({"file_name": listed}), train / "metadata.parquet")
    items = list(list_items([str(tmp_path / "data")]))
    places = [item.name.removeprefix(f"{tmp_path}/data/") for item in items]
    extra = ["train/metadata.jsonl#4"] if kind == "jsonl" else []
    assert places == ["test/9.png", "train/2.png", "train/missing.png", "train/1.png", *extra]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_other_metadata_is_a_file_like_any_other(tmp_path, name):
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / name).write_text('{"camera": 1}\n')
    assert names(tmp_path) == [str(tmp_path / "a.png")]


def test_what_cannot_be_listed_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "latin.txt").write_bytes("ä.png".encode("latin-1"))
    (tmp_path / "no.parquet").write_bytes(b"nix")
    (tmp_path / "empty.txt").write_text("\n")
    for name, said in {
        "nix.png": "doesn't exist",
        "*.gif": "holds no images",
        "empty": "holds no images",
        "empty.txt": "holds no images",
        "latin.txt": "must be UTF-8",
        "no.parquet": "can't be read as Parquet",
    }.items():
        with pytest.raises(InputError, match=said):
            names(tmp_path / name)


def test_a_million_lines_are_not_held(tmp_path):
    """The listing is a generator: the first item comes before the last line has been read."""
    path = tmp_path / "list.txt"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.write(descriptor, b"a.png\n" * 4096)
        assert next(iter(list_items([str(path)]))) == Item(f"{tmp_path}/a.png", f"{tmp_path}/a.png")
    finally:
        os.close(descriptor)
