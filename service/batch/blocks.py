"""Consecutive items under one number: what is done and kept whole, or not at all."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from models.encoder import Vectors
from service.batch.item import Item
from service.batch.rows import Row

# Large enough that a commit costs nothing beside the images, small enough to lose little work.
BLOCK_SIZE = 256


@dataclass(frozen=True)
class Block:
    """Items number * size ... of the listing; the last block may hold fewer."""

    number: int
    items: tuple[Item, ...]


@dataclass(frozen=True)
class BlockResult:
    """One row an item, in their order.

    vectors: float32 [len(rows), D], NaN where a row has an error; None unless they were asked for
    duplicates: rows whose answer was taken from an earlier image of the same content
    """

    number: int
    rows: tuple[Row, ...]
    vectors: Vectors | None
    duplicates: int


def blocks(items: Iterable[Item], *, size: int = BLOCK_SIZE, first: int = 0) -> Iterator[Block]:
    """Cut items into blocks, numbered from `first`."""
    rest = iter(items)
    for number in itertools.count(first):
        part = tuple(itertools.islice(rest, size))
        if not part:
            return
        yield Block(number, part)
