from __future__ import annotations

import pytest

from indexer import Category, CategoryError, category_from_json, category_to_json
from indexer.categories.category import as_categories


def test_names_are_composed_and_their_spaces_single():
    # "é" as a letter and a combining accent becomes the one character that people type.
    assert Category("  cafe\u0301\t bar ").label == "caf\u00e9 bar"


@pytest.mark.parametrize("label", ["", "   ", "a\x07b", "\ud800", "x" * 501, 7, None])
def test_a_label_must_be_printable_text(label):
    with pytest.raises(CategoryError):
        Category(label)


def test_scripts_that_need_joiners_are_kept():
    family = "\U0001f468\u200d\U0001f469"  # a zero-width joiner is no control character
    assert Category(family).label == family


@pytest.mark.parametrize("prompts", [(), "one sentence", ("",), ("a",) * 1001])
def test_own_prompts_must_be_a_list_of_sentences(prompts):
    with pytest.raises(CategoryError, match="prompt"):
        Category("cat", prompts=prompts)


@pytest.mark.parametrize("metadata", [{"a": float("nan")}, {"a": object()}, {1: "a"}])
def test_metadata_must_be_json(metadata):
    with pytest.raises(CategoryError, match="metadata"):
        Category("cat", metadata=metadata)


def test_json_there_and_back():
    category = Category(
        "cat",
        prompts=("a tabby",),
        synonyms=("kitty",),
        group="pets",
        background=True,
        metadata={"id": 7, "tags": ["a", None]},
    )
    assert category_from_json(category_to_json(category), where="here") == category
    assert category_to_json(Category("dog")) == {"label": "dog"}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (3, "label or an object"),
        ({}, "no 'label'"),
        ({"label": "a", "colour": "red"}, "'colour'"),
        ({"label": "a", "prompts": "b"}, "'prompts'"),
        ({"label": "a", "prompts": [3]}, "string"),
        ({"label": "a", "synonyms": 3}, "'synonyms'"),
        ({"label": "a", "group": 3}, "'group'"),
        ({"label": "a", "background": "yes"}, "'background'"),
        ({"label": "a", "metadata": []}, "'metadata'"),
        ({"label": ""}, "empty"),
    ],
)
def test_json_mistakes_are_named_with_their_place(value, says):
    with pytest.raises(CategoryError, match=r"^entry 4") as caught:
        category_from_json(value, where="entry 4")
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("categories", "says"),
    [
        ([], "no categories"),
        ("cat", "one string"),
        (["cat", "cat"], "'cat' occurs twice"),
        (["cat", " cat "], "'cat' occurs twice"),
        (["cat", Category("dog", synonyms=("cat",))], "both 'cat' and 'dog'"),
        ([Category("dog", synonyms=("dog",))], "same name twice"),
    ],
)
def test_every_name_means_one_label(categories, says):
    with pytest.raises(CategoryError, match=says):
        as_categories(categories)


def test_the_same_object_twice_is_a_duplicate_too():
    cat = Category("cat")
    with pytest.raises(CategoryError, match="twice"):
        as_categories([cat, cat])
