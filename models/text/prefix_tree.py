"""Which tokens of many texts must be computed once, when texts that begin alike share their start.

In a causal tower a token's state depends on the tokens before it alone. Sorted, each text shares
some tokens with the text before it and adds the rest: its *run*. Texts whose runs have the same
length behind equally many shared tokens form a group that attention computes in one call.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Texts with runs of one shape. Their nodes lie side by side, text by text.

    first: the group's first node
    texts: int64 [m], which texts (rows of the sorted order)
    run: tokens each of them adds, r
    path: int64 [m, l], the nodes of each text from its first token on; the last r are its own
    """

    first: int
    texts: Integers
    run: int
    path: Integers

    @property
    def last(self) -> int:
        """One past the group's last node."""
        return self.first + len(self.texts) * self.run


@dataclass(frozen=True)
class Chunk:
    """Nodes that are computed together.

    tokens, positions: int64 [n], of each node
    """

    tokens: Integers
    positions: Integers
    groups: tuple[Group, ...]


def sort_texts(tokens: Integers, lengths: Integers) -> tuple[Integers, Integers]:
    """Order in which neighbours share most: texts sorted by their tokens, repeats left out.

    tokens: int64 [N, L]; lengths: int64 [N], tokens of each that count
    Returns rows [M] of the distinct texts in order, and for each text [N] its place among them.
    """
    kept = np.arange(tokens.shape[1]) < lengths[:, None]
    masked = np.where(kept, tokens, -1)  # a shorter text comes before what continues it
    _, rows, places = np.unique(masked, axis=0, return_index=True, return_inverse=True)
    return rows, places.reshape(-1)


def shared_lengths(tokens: Integers, lengths: Integers) -> Integers:
    """Tokens that each of the sorted texts shares with the one before it; int64 [M]."""
    shared = np.zeros(len(tokens), np.int64)
    if len(tokens) > 1:
        same = tokens[1:] == tokens[:-1]
        until = np.where(same.all(axis=1), tokens.shape[1], same.argmin(axis=1))
        shared[1:] = np.minimum(until, np.minimum(lengths[1:] - 1, lengths[:-1]))
    return shared


def chunks(tokens: Integers, lengths: Integers, *, max_nodes: int) -> Iterator[Chunk]:
    """Cut the sorted texts into chunks of at most `max_nodes` nodes, or of one text.

    A chunk computes the tokens that its first text shares with the chunk before once more:
    a handful of nodes, for which no keys and values need to outlive their chunk.
    """
    shared = shared_lengths(tokens, lengths)
    begin = 0
    while begin < len(tokens):
        added = np.cumsum(lengths[begin:] - shared[begin:]) + shared[begin]
        count = max(1, int(np.searchsorted(added, max_nodes, side="right")))
        yield _chunk(tokens, lengths, shared, begin, begin + count)
        begin += count


def _chunk(tokens: Integers, lengths: Integers, shared: Integers, begin: int, end: int) -> Chunk:
    shared = shared[begin:end].copy()
    shared[0] = 0
    lengths = lengths[begin:end]
    runs = lengths - shared
    order = np.lexsort((lengths, runs))  # groups follow each other, texts keep their order
    starts = np.empty(len(runs), np.int64)
    starts[order] = np.cumsum(runs[order]) - runs[order]
    paths = np.zeros((len(runs), int(lengths.max())), np.int64)
    for row in range(len(runs)):
        keep, length = shared[row], lengths[row]
        paths[row, :keep] = paths[row - 1, :keep]
        paths[row, keep:length] = np.arange(starts[row], starts[row] + length - keep)
    total = int(runs.sum())
    node_tokens, positions = np.empty(total, np.int64), np.empty(total, np.int64)
    valid = np.arange(paths.shape[1]) < lengths[:, None]
    node_tokens[paths[valid]] = tokens[begin:end, : paths.shape[1]][valid]
    positions[paths[valid]] = np.broadcast_to(np.arange(paths.shape[1]), paths.shape)[valid]
    shapes = np.stack((runs[order], lengths[order]))
    cuts = np.flatnonzero((shapes[:, 1:] != shapes[:, :-1]).any(axis=0)) + 1
    groups = tuple(
        Group(
            first=int(starts[rows[0]]),
            texts=rows + begin,
            run=int(runs[rows[0]]),
            path=paths[rows, : lengths[rows[0]]],
        )
        for rows in np.split(order, cuts)
    )
    return Chunk(node_tokens, positions, groups)
