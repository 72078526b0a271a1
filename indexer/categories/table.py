"""The categories of an index as columns, from which single categories are made when asked for.

A million `Category` objects take seconds and a gigabyte; columns take neither.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from indexer.categories.category import JSON, Category
from indexer.errors import BrokenIndexError

_SCHEMA = pa.schema(
    [
        pa.field("label", pa.string(), nullable=False),
        pa.field("prompts", pa.list_(pa.string())),
        pa.field("synonyms", pa.list_(pa.string())),
        pa.field("group", pa.string()),
        pa.field("background", pa.bool_(), nullable=False),
        pa.field("metadata", pa.string()),
    ]
)


class CategoryTable:
    """The categories in the order of their vectors; category i owns rows starts[i]..starts[i+1]."""

    def __init__(self, columns: pa.Table) -> None:
        self._columns = columns.combine_chunks()

    @classmethod
    def of(cls, categories: Sequence[Category]) -> CategoryTable:
        """The table of these categories."""
        columns = {
            "label": [category.label for category in categories],
            "prompts": [category.prompts for category in categories],
            "synonyms": [category.synonyms or None for category in categories],
            "group": [category.group for category in categories],
            "background": [category.background for category in categories],
            "metadata": [_metadata_text(category.metadata) for category in categories],
        }
        return cls(pa.table(columns, schema=_SCHEMA))

    @classmethod
    def read(cls, path: Path) -> CategoryTable:
        """Raises: BrokenIndexError if the file isn't a table of categories."""
        try:
            columns = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise BrokenIndexError(f"{path} can't be read: {error}") from error
        if not columns.schema.equals(_SCHEMA):
            raise BrokenIndexError(f"{path} has other columns than a table of categories")
        return cls(columns)

    def write(self, path: Path) -> None:
        """Write the columns as Parquet."""
        pq.write_table(self._columns, path, compression="zstd")

    def __len__(self) -> int:
        return int(self._columns.num_rows)

    def __iter__(self) -> Iterator[Category]:
        return (self.category(position) for position in range(len(self)))

    def category(self, position: int) -> Category:
        """The category at `position`."""
        row = {name: self._columns.column(name)[position].as_py() for name in _SCHEMA.names}
        prompts = row["prompts"]
        return Category(
            label=row["label"],
            prompts=None if prompts is None else tuple(prompts),
            synonyms=tuple(row["synonyms"] or ()),
            group=row["group"],
            background=row["background"],
            metadata=self.metadata(position),
        )

    def label(self, position: int) -> str:
        """The label at `position`."""
        return str(self._columns.column("label")[position])

    def metadata(self, position: int) -> Mapping[str, JSON]:
        """The metadata at `position`, parsed anew on each call."""
        text = self._columns.column("metadata")[position].as_py()
        return json.loads(text) if text else {}

    def labels(self, start: int = 0, stop: int | None = None) -> list[str]:
        """Labels start..stop in order."""
        column = self._columns.column("label")
        return list(column[start : len(self) if stop is None else stop].to_pylist())

    def positions(self, labels: Sequence[str]) -> NDArray[np.int64]:
        """Where each label stands, -1 where it doesn't: int64 [len(labels)]."""
        found = pc.index_in(pa.array(labels, pa.string()), value_set=self._columns.column("label"))
        return np.asarray(found.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int64)

    def owners(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Which category has each name, label or synonym; -1 for none: int64 [len(names)]."""
        owners = self.positions(names)
        if self.has_synonyms:
            synonyms = self._columns.column("synonyms").combine_chunks()
            found = pc.index_in(pa.array(names, pa.string()), value_set=pc.list_flatten(synonyms))
            at = np.asarray(found.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int64)
            parents = pc.list_parent_indices(synonyms).to_numpy(zero_copy_only=False)
            owners[at >= 0] = parents[at[at >= 0]]
        return owners

    def names_beyond_ascii(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Each name with a character beyond ASCII, and the texts that its vector is made of.

        The texts are the category's own prompts where a label has some (then it is the prompts'
        characters that count), else the name alone.
        """
        labels, prompts = self._columns.column("label"), self._columns.column("prompts")
        beyond = pc.and_(pc.invert(pc.string_is_ascii(labels)), pc.is_null(prompts))
        for label in labels.filter(beyond).to_pylist():
            yield label, (label,)
        described = pc.is_valid(prompts)
        pairs = zip(labels.filter(described), prompts.filter(described), strict=True)
        for label, texts in ((label.as_py(), texts.as_py()) for label, texts in pairs):
            if not all(text.isascii() for text in texts):
                yield label, tuple(texts)
        synonyms = pc.list_flatten(self._columns.column("synonyms"))
        for name in synonyms.filter(pc.invert(pc.string_is_ascii(synonyms))).to_pylist():
            yield name, (name,)

    def take(self, positions: NDArray[np.int64]) -> CategoryTable:
        """The categories at these positions, in their order."""
        return CategoryTable(self._columns.take(pa.array(positions)))

    def joined(self, other: CategoryTable) -> CategoryTable:
        """These categories, then the other table's."""
        return CategoryTable(pa.concat_tables([self._columns, other._columns]))

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """First vector of each category, and the number of vectors last: int64 [len + 1]."""
        extra = pc.fill_null(pc.list_value_length(self._columns.column("synonyms")), 0)
        starts = np.zeros(len(self) + 1, dtype=np.int64)
        np.cumsum(1 + extra.to_numpy().astype(np.int64), out=starts[1:])
        return starts

    @cached_property
    def has_synonyms(self) -> bool:
        """Whether some category owns more than one vector."""
        return int(self.starts[-1]) > len(self)

    @cached_property
    def background(self) -> NDArray[np.bool_]:
        """Which categories are background: bool [len]."""
        return np.asarray(self._columns.column("background").to_numpy(), dtype=np.bool_)

    @cached_property
    def groups(self) -> list[str]:
        """The groups' names, in order of first appearance; `group_of` points into it."""
        return [str(name) for name in self._encoded_groups.dictionary.to_pylist()]

    @cached_property
    def group_of(self) -> NDArray[np.int32]:
        """Each category's group, -1 for none: int32 [len]."""
        indices = self._encoded_groups.indices.fill_null(-1)
        return np.asarray(indices.to_numpy(zero_copy_only=False), dtype=np.int32)

    @cached_property
    def _encoded_groups(self) -> pa.DictionaryArray:
        column = self._columns.column("group")
        array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], pa.string())
        return array.dictionary_encode()


def _metadata_text(metadata: Mapping[str, JSON]) -> str | None:
    return json.dumps(metadata, ensure_ascii=False) if metadata else None
