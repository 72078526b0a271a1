from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer import BrokenIndexError, Category
from indexer.categories.table import CategoryTable

CATEGORIES = [
    Category("cat", synonyms=("kitty", "puss"), group="pets", metadata={"id": 1}),
    Category("lorry", prompts=("a lorry", "a truck"), group="vehicles"),
    Category("empty road", background=True),
    Category("dog", synonyms=("hound",), group="pets"),
]


@pytest.fixture
def table():
    return CategoryTable.of(CATEGORIES)


def test_categories_come_back_from_disk_as_they_were(table, tmp_path):
    table.write(tmp_path / "categories.parquet")
    assert list(CategoryTable.read(tmp_path / "categories.parquet")) == CATEGORIES


def test_rows_groups_and_background(table):
    assert table.starts.tolist() == [0, 3, 4, 5, 7]
    assert table.has_synonyms
    assert table.groups == ["pets", "vehicles"]
    assert table.group_of.tolist() == [0, 1, -1, 0]
    assert table.background.tolist() == [False, False, True, False]
    assert not CategoryTable.of([Category("a"), Category("b")]).has_synonyms


def test_owners_of_labels_and_synonyms(table):
    assert table.owners(["puss", "dog", "horse", "hound", "lorry"]).tolist() == [0, 3, -1, 3, 1]
    assert table.positions(["puss", "dog"]).tolist() == [-1, 3]


def test_owners_after_a_selection(table):
    kept = table.take(np.array([1, 3]))
    assert kept.owners(["cat", "kitty", "hound"]).tolist() == [-1, -1, 1]
    assert kept.joined(CategoryTable.of([Category("cat")])).owners(["cat"]).tolist() == [2]


def test_labels_are_read_in_parts(table):
    assert table.labels(1, 3) == ["lorry", "empty road"]
    assert table.labels(3) == ["dog"]


def test_another_table_is_refused(tmp_path):
    path = tmp_path / "categories.parquet"
    pq.write_table(pa.table({"label": ["cat"]}), path)
    with pytest.raises(BrokenIndexError, match="other columns"):
        CategoryTable.read(path)
    path.write_bytes(b"not parquet")
    with pytest.raises(BrokenIndexError, match="can't be read"):
        CategoryTable.read(path)
