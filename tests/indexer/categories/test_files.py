from __future__ import annotations

import json

import pytest

from indexer import Category, CategoryError, parse_categories, read_categories


def test_txt_is_one_label_a_line(tmp_path):
    path = tmp_path / "pets.txt"
    path.write_bytes("\ufeffcat\r\ndog\n고양이\n\n".encode())
    assert [category.label for category in read_categories(path)] == ["cat", "dog", "고양이"]


def test_csv_columns_become_fields_and_metadata():
    data = b'label,prompts,synonyms,group,background,sku\ncat,a cat|"the cat",kitty,pets,,A1\n'
    data += b"other,,,,true,\n\n"
    assert parse_categories(data, "a.csv") == [
        Category(
            "cat",
            prompts=("a cat", '"the cat"'),
            synonyms=("kitty",),
            group="pets",
            metadata={"sku": "A1"},
        ),
        Category("other", background=True),
    ]


@pytest.mark.parametrize(
    "value",
    [
        ["cat", {"label": "dog", "prompts": ["a dog"]}],
        {"categories": ["cat", {"label": "dog", "prompts": ["a dog"]}]},
    ],
)
def test_json_is_a_list_of_labels_and_objects(value):
    data = json.dumps(value).encode()
    assert parse_categories(data, "a.json") == [Category("cat"), Category("dog", ("a dog",))]


def test_json_of_descriptions_by_label():
    data = b'{"cat": ["soft fur", "a long tail"], "dog": ["floppy ears"]}'
    assert [category.prompts for category in parse_categories(data, "cupl.json")] == [
        ("soft fur", "a long tail"),
        ("floppy ears",),
    ]


def test_jsonl_is_one_value_a_line():
    data = b'{"label": "cat", "metadata": {"id": 1}}\n\n"dog"\n'
    assert parse_categories(data, "A.JSONL") == [
        Category("cat", metadata={"id": 1}),
        Category("dog"),
    ]


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.txt", b"cat\n\xff\n", "line 2 isn't UTF-8"),
        ("a.txt", "cat".encode("utf-16"), "isn't UTF-8"),
        ("a.txt", b"", "no categories"),
        ("a.txt", b"cat\n  \ndog", "line 2 is empty"),
        ("a.txt", b"cat\ndog\ncat", "'cat' occurs twice"),
        ("a.txt", b"cat\x00", "control characters"),
        ("a.csv", b"cat\ndog\n", "'label'"),
        ("a.csv", b"label,label\na,b\n", "occurs twice"),
        ("a.csv", b"label,group\ncat\n", "line 2 has 1 cells"),
        ("a.csv", b"label,group\n,pets\n", "line 2: a label is empty"),
        ("a.csv", b"label,group\n,\n", "line 2 has no label"),
        ("a.csv", b"label,background\ncat,maybe\n", "line 2: 'background'"),
        ("a.csv", b'label\n"cat', "isn't CSV"),
        ("a.json", b'[\n"cat",]', "line 2 isn't JSON"),
        ("a.json", b'"cat"', "list of labels"),
        ("a.json", b'["cat", 3]', "entry 1"),
        ("a.jsonl", b'"cat"\n{', "line 2 isn't JSON"),
        ("a.jsonl", b'"cat"\n{"name": "dog"}', "line 2"),
        ("a.xlsx", b"", "unknown ending '.xlsx'"),
        ("labels", b"", "unknown ending ''"),
    ],
)
def test_mistakes_say_where_they_are(name, data, says):
    with pytest.raises(CategoryError) as caught:
        parse_categories(data, name)
    assert caught.value.message.startswith(f"{name}: ")
    assert says in caught.value.message


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(CategoryError, match=r"can't read .*no such file"):
        read_categories(tmp_path / "none.txt")
