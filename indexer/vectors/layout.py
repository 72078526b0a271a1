"""How the vectors of an index are laid out, chosen by how many there are.

Measured with 512 numbers a vector: comparing a query with every vector takes 0.04 ms at 1,000, 16
ms at 100,000 and 147 ms at 1,000,000. Inverted lists compare it with a few lists only; see
docs/indexing.md for what that gains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from indexer.errors import LayoutError

Storage = Literal["fp32", "fp16", "sq8"]

# Beyond this, one comparison with all vectors costs more than a small image tower does.
_EXACT_UP_TO = 50_000
# Fewer vectors than this for each list, and k-means has too little to find centres from.
_ROWS_PER_LIST = 39
_BYTES: dict[Storage, int] = {"fp32": 4, "fp16": 2, "sq8": 1}  # for each number of a vector
_ID_BYTES = 16  # a row's number in its list, and its place in the table of rows


@dataclass(frozen=True)
class LayoutOptions:
    """What a user may ask of a large index.

    recall: wanted share of the true ten best that a search finds, in (0, 1]
    memory_mb: most that the vectors may take, in MB (10^6 bytes); None: no limit
    exact_up_to: number of vectors up to which every one is compared
    """

    recall: float = 0.99
    memory_mb: float | None = None
    exact_up_to: int = _EXACT_UP_TO

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise LayoutError(f"recall must be in (0, 1], not {self.recall}", param="recall")
        if self.memory_mb is not None and self.memory_mb <= 0:
            raise LayoutError("memory_mb must be more than 0", param="memory_mb")


@dataclass(frozen=True)
class Reach:
    """Lists to look into for queries whose nearest centre has at least this cosine.

    probes: for the wanted recall; probability_probes: for probabilities, of which the head has to
        be complete
    """

    cosine: float
    probes: int
    probability_probes: int


@dataclass(frozen=True)
class Measured:
    """What was seen of an index when it was built, on one kind of query, none used to tune it.

    kind: "near" and "far" are vectors of the index moved a little and a lot; "images" are the
        embeddings given; "farther" and "anywhere" lie beyond
    queries: how many were asked
    recall_at_10: mean share of the true ten best that were found
    probability_error: greatest difference of the best match's probability from the exact one;
        None where there is no softmax
    query_ms: median milliseconds for finding the ten best of one query, without probabilities
    """

    kind: str
    queries: int
    recall_at_10: float
    probability_error: float | None
    query_ms: float


@dataclass(frozen=True)
class Layout:
    """The layout of one index, as its manifest tells it.

    type: "flat" compares every vector, "ivf" those in the nearest inverted lists
    storage: how each number of a vector is kept
    bytes_per_vector: memory of one vector, its share of the lists included
    lists: how many there are; reaches: how many are looked into, nearest queries first
    trained_on: vectors that were there when the lists' centres were found
    target_recall: share of the true ten best that was asked for
    exact_query_ms: median milliseconds for comparing one query with every vector
    build_seconds: for training, filling and tuning, without encoding
    """

    type: Literal["flat", "ivf"]
    storage: Storage
    bytes_per_vector: float
    exact_query_ms: float
    build_seconds: float
    lists: int | None = None
    trained_on: int | None = None
    target_recall: float | None = None
    reaches: tuple[Reach, ...] = ()
    measured: tuple[Measured, ...] = ()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Layout:
        """The inverse of `dataclasses.asdict`. Raises: KeyError, TypeError for a lacking field."""
        reaches = tuple(Reach(**item) for item in value["reaches"])
        measured = tuple(Measured(**item) for item in value["measured"])
        return cls(**{**value, "reaches": reaches, "measured": measured})


@dataclass(frozen=True)
class Plan:
    """What to build, before anything has been tuned."""

    type: Literal["flat", "ivf"]
    storage: Storage
    lists: int = 0


def plan_layout(rows: int, dim: int, options: LayoutOptions) -> Plan:
    """The layout for this many vectors: exact while that is fast, as precise as memory allows.

    Raises: LayoutError if no layout fits into the memory allowed.
    """
    budget = float("inf") if options.memory_mb is None else options.memory_mb * 1e6
    if rows <= options.exact_up_to and rows * 4 * dim <= budget:
        return Plan("flat", "fp32")
    lists = count_lists(rows)
    storages: tuple[Storage, ...] = ("fp16", "sq8")
    for storage in storages:
        if rows * ivf_bytes(rows, dim, storage, lists) <= budget:
            return Plan("ivf", storage, lists)
    least = rows * ivf_bytes(rows, dim, "sq8", lists) / 1e6
    raise LayoutError(
        f"{rows:,} vectors of {dim} numbers need at least {least:,.0f} MB; "
        f"{options.memory_mb:,.0f} MB are allowed: allow more, or take out categories",
        param="memory_mb",
    )


def count_lists(rows: int) -> int:
    """A power of two near 4 * sqrt(rows), with enough vectors for each list."""
    wanted = max(1.0, min(4 * rows**0.5, rows / _ROWS_PER_LIST))
    return 1 << round(math.log2(wanted))


def ivf_bytes(rows: int, dim: int, storage: Storage, lists: int) -> float:
    """Bytes of one vector in inverted lists, with its share of the lists' centres."""
    return _BYTES[storage] * dim + _ID_BYTES + 4 * dim * lists / max(rows, 1)
