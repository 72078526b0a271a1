"""Names that the model's vocabulary knows nothing of are recorded with the index."""

from __future__ import annotations

import json

import pytest

from indexer import Category, CategoryIndex
from indexer.categories.unknown import MOST_NAMED
from indexer.manifest import MANIFEST, _serialise
from models import load_encoder
from tests.indexer.fakes import HashEncoder

MIXED = [
    "house",
    "강아지",
    Category("고양이", prompts=("a photo of a cat",)),  # described in words that it knows
    Category("새", prompts=("새 사진",)),
    Category("fish", synonyms=("물고기",)),
    "빨간 apple",  # one word is known
]


def test_they_are_named_and_the_others_are_not():
    index = CategoryIndex.build(MIXED, HashEncoder())
    assert index.manifest.unknown_names == ("강아지", "새", "물고기")
    assert index.manifest.unknown_count == 3
    [warning] = index.warnings
    assert "'강아지', '새', '물고기'" in warning
    assert "고양이" not in warning


def test_the_embedded_model_is_asked_for_its_own_vocabulary():
    encoder = load_encoder("everyday", backend="torch", device="cpu")
    index = CategoryIndex.build(["собака", "犬", "house", "사과"], encoder)
    assert index.manifest.unknown_names == ("собака", "犬")
    assert CategoryIndex.build(["house", "dog"], encoder).warnings == ()


def test_changes_and_the_disk_keep_account(tmp_path):
    encoder = HashEncoder()
    index = CategoryIndex.build(MIXED, encoder)
    changed = index.changed(encoder, add=["나무"], remove=["강아지"])
    changed.save(tmp_path / "index")
    loaded = CategoryIndex.load(tmp_path / "index")
    assert set(loaded.manifest.unknown_names) == {"새", "나무", "물고기"}
    assert loaded.warnings == changed.warnings
    assert loaded.changed(encoder, remove=["새", "나무", "fish"]).warnings == ()


def test_a_manifest_names_only_the_first_and_counts_all(tmp_path):
    labels = [chr(0xAC00 + at) for at in range(MOST_NAMED + 20)]
    index = CategoryIndex.build(labels, HashEncoder(), templates="plain")
    assert index.manifest.unknown_names == tuple(labels[:MOST_NAMED])
    assert index.manifest.unknown_count == MOST_NAMED + 20
    assert "and 115 more" in index.warnings[0]


def test_an_index_written_before_they_were_recorded_loads(tmp_path):
    CategoryIndex.build(["a", "b"], HashEncoder()).save(tmp_path / "index")
    path = tmp_path / "index" / MANIFEST
    value = json.loads(path.read_bytes())
    for key in ("sha256", "unknown_names", "unknown_count"):
        del value[key]
    path.write_bytes(_serialise(value))
    assert CategoryIndex.load(tmp_path / "index").warnings == ()


@pytest.mark.parametrize("labels", [["house", "dog"], ["café", "jalapeño"]])
def test_nothing_to_say_of_names_that_are_known(labels):
    assert CategoryIndex.build(labels, HashEncoder()).warnings == ()
