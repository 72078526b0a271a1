"""The categories that taught classes are ranked with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from indexer import Category, CategoryIndex
from service.finetuning import other_categories
from service.finetuning.other_categories import load_others, others_of, save_others
from tests.service.fakes import ColourEncoder
from tests.training.samples import write_folder
from training import Dataset
from training.finetune import Sources


@pytest.fixture(scope="module")
def encoder() -> ColourEncoder:
    return ColourEncoder()


@pytest.fixture(scope="module")
def data(encoder: ColourEncoder, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = write_folder(tmp_path_factory.mktemp("shots"), {"red": 4, "blue": 4})
    return Sources(root, cache=None).read(encoder)


def test_all_other_categories_of_an_index(encoder: ColourEncoder, data: Dataset):
    others = ["apple", Category("pear", synonyms=("williams",)), "plum"]
    index = CategoryIndex.build(["apple", "red", *others[1:]], encoder, templates=("{}",))
    found = others_of(index, data)
    assert found is not None
    wanted = encoder.encode_texts(["apple", "pear", "williams", "plum"])
    assert np.allclose(found.numpy(), wanted, atol=1e-6)
    assert others_of(CategoryIndex.build(["red", "blue"], encoder), data) is None


def test_of_a_large_index_those_nearest_to_the_images(
    encoder: ColourEncoder, data: Dataset, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(other_categories, "MOST", 10)
    labels = [f"word {number}" for number in range(40)]
    index = CategoryIndex.build([*labels, "red", "green"], encoder, templates=("{}",))
    found = others_of(index, data)
    assert found is not None
    assert len(found) == 10
    x = data.train.first_views()
    every = torch.from_numpy(encoder.encode_texts([*labels, "green"]))
    best = (x @ every.T).max(dim=1).values
    assert torch.isclose((x @ found.T).max(), best.max(), atol=1e-6)


def test_they_stay_the_same_for_a_job_that_goes_on(encoder: ColourEncoder, data: Dataset, tmp_path):
    index = CategoryIndex.build(["red", "apple"], encoder, templates=("{}",))
    path = tmp_path / "features" / "other-categories.npy"
    first = others_of(index, data)
    assert first is not None
    save_others(path, first)
    again = load_others(path)
    assert again is not None
    assert torch.equal(first, again)
    assert replace(data, others=again).digest == replace(data, others=first).digest
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    alone = others_of(CategoryIndex.build(["red", "blue"], encoder), data)
    save_others(tmp_path / "none.npy", alone)
    assert load_others(tmp_path / "none.npy") is None
