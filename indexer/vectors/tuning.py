"""How many lists a search has to look into, found on queries held out from the vectors.

Queries are vectors of the index moved away at random by several steps (a query that is itself far
from everything needs more lists), or the embeddings of images where there are some. Two thirds of
each kind choose the number of lists: the least with which the ten best are found as often as
wanted, beyond what chance could do in so few queries, and with which the best match's probability
is right. What is reported is measured on the other third.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.vectors.ivf import IvfVectors
from indexer.vectors.layout import Measured, Reach
from indexer.vectors.tail import Tail, top_probability
from models.encoder import Vectors

_BEST = 10
# Standard errors by which the mean recall must exceed what is wanted. Without any, a million
# vectors were tuned to 0.99 and reached 0.989 and 0.981 on other queries.
_SURE = 2.0
# Then so many times as many lists: a miss is rare but costs several of the ten at once, which a few
# hundred queries hardly show either.
_RECALL_MARGIN = 1.5
_QUERIES = 384  # of each kind
_TIMED = 32  # queries whose time is taken
_WARM = 3  # queries asked before the clock starts
# Length of the random step from a vector: cosines of 0.94, 0.71 and 0.32 to where it began.
_STEPS = {"near": 0.35, "far": 1.0, "farther": 3.0, "anywhere": float("inf")}
# A best match in a list not looked into is rare, but makes everything wrong, and a few hundred
# queries hardly show it. Hence all but a hundredth of them have to be right, and then some more
# lists: at 100,000 vectors twice as many still left one query of 600 with an error of 0.04.
_PROBABILITY_ERROR = 0.02
_PROBABILITY_SHARE = 0.99
_PROBABILITY_MARGIN = 3
_LOW = 5  # percentile of a kind's cosines from which on a query counts as of that kind
_ROWS_AT_ONCE = 16384


@dataclass(frozen=True)
class Queries:
    """One kind of query and what an exact search says.

    vectors: float32 [N, D]; best: rows of the true ten best, int64 [N, 10]
    probability: of the best match by a softmax over all rows, float64 [N], None without a softmax
    """

    kind: str
    vectors: Vectors
    best: NDArray[np.int64]
    probability: NDArray[np.float64] | None

    def parts(self) -> tuple[Queries, Queries]:
        """Those to tune on, and those to report on."""
        cut = len(self.vectors) * 2 // 3
        return self._slice(slice(None, cut)), self._slice(slice(cut, None))

    def _slice(self, part: slice) -> Queries:
        probability = None if self.probability is None else self.probability[part]
        return Queries(self.kind, self.vectors[part], self.best[part], probability)


def held_out(
    vectors: Vectors,
    scale: float | None,
    images: Vectors | None = None,
    *,
    on_progress: Callable[[int, int], None],
) -> list[Queries]:
    """Queries of every kind, nearest first, with the exact answers.

    vectors: float32 [rows, D] of unit norm; images: float32 [M, D] of unit norm
    scale: factor of the softmax, None if there is none
    """
    chance = np.random.default_rng(1)
    rows = len(vectors)
    kinds: dict[str, Vectors] = {}
    for kind, step in _STEPS.items():
        if kind == "farther" and images is not None and len(images):
            # Images are what is far in truth; a random step is only the guess without them.
            chosen = chance.choice(len(images), min(_QUERIES, len(images)), replace=False)
            kinds["images"] = images[chosen].astype(np.float32)
            continue
        began = vectors[chance.choice(rows, min(_QUERIES, rows), replace=False)]
        away = chance.standard_normal(began.shape, dtype=np.float32)
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        moved = away if step == float("inf") else began + np.float32(step) * away
        kinds[kind] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    every = np.concatenate(list(kinds.values()))
    scores, best = faiss.knn(every, vectors, _BEST, metric=faiss.METRIC_INNER_PRODUCT)
    probability = None
    if scale is not None:
        probability = _exact_probability(every, scores[:, 0], vectors, scale, on_progress)
    made, start = [], 0
    for kind, queries in kinds.items():
        part = slice(start, start + len(queries))
        known = None if probability is None else probability[part]
        made.append(Queries(kind, queries, best[part], known))
        start = part.stop
    return made


def choose_reaches(
    index: IvfVectors, tail: Tail, kinds: Sequence[Queries], scale: float | None, wanted: float
) -> tuple[Reach, ...]:
    """For each kind the least numbers of lists that serve it, nearest kind first."""
    reaches = []
    probes = sure = 1
    for kind in sorted(kinds, key=lambda kind: -_low_cosine(index, kind)):
        probes = _least(index, probes, partial(_recalls, index, kind, wanted))
        sure = max(sure, probes)
        if scale is not None:
            sure = _least(index, sure, partial(_is_right, index, tail, kind, scale))
        found = min(math.ceil(_RECALL_MARGIN * probes), index.lists)
        margin = min(max(_PROBABILITY_MARGIN * sure, found), index.lists)
        reaches.append(Reach(round(_low_cosine(index, kind), 4), found, margin))
    return tuple(reaches)


def _recalls(index: IvfVectors, kind: Queries, wanted: float, probes: int) -> bool:
    shares = _shares_found(index, kind, probes)
    return bool(shares.mean() - _SURE * shares.std() / len(shares) ** 0.5 >= wanted)


def _is_right(index: IvfVectors, tail: Tail, kind: Queries, scale: float, probes: int) -> bool:
    errors = _probability_errors(index, tail, kind, scale, probes)
    return bool(np.quantile(errors, _PROBABILITY_SHARE) <= _PROBABILITY_ERROR)


def measure(
    index: IvfVectors, tail: Tail, kinds: Sequence[Queries], scale: float | None
) -> tuple[Measured, ...]:
    """What the index does with the reaches it has, for each kind of query."""
    measured = []
    for kind in kinds:
        asked = kind.vectors[: _TIMED + _WARM]
        measured.append(
            Measured(
                kind=kind.kind,
                queries=len(kind.vectors),
                recall_at_10=recall(index, kind),
                probability_error=(
                    None
                    if scale is None
                    else float(_probability_errors(index, tail, kind, scale, None).max())
                ),
                query_ms=median_ms(lambda one: index.search(one, _BEST, index.near(one)), asked),
            )
        )
    return tuple(measured)


def recall(index: IvfVectors, queries: Queries, probes: int | None = None) -> float:
    """Mean share of the true ten best among the ten found."""
    return float(_shares_found(index, queries, probes).mean())


def _shares_found(index: IvfVectors, queries: Queries, probes: int | None) -> NDArray[np.float64]:
    """Of each query's true ten best, the share found: float64 [N]."""
    near = index.near(queries.vectors, probes=probes)
    _, found = index.search(queries.vectors, _BEST, near)
    shares: NDArray[np.float64] = (found[:, :, None] == queries.best[:, None, :]).any(2).mean(1)
    return shares


def median_ms(ask: Callable[[Vectors], object], queries: Vectors) -> float:
    """Median milliseconds of one query at a time, the first few left out."""
    times = []
    for number in range(len(queries)):
        began = time.perf_counter()
        ask(queries[number : number + 1])
        times.append(time.perf_counter() - began)
    return float(np.median(times[min(_WARM, len(times) - 1) :])) * 1000


def _least(index: IvfVectors, start: int, serves: Callable[[int], bool]) -> int:
    """The first number of lists that serves, in steps of about a quarter; all if none less does."""
    probes = start
    while probes < index.lists and not serves(probes):
        probes = max(probes + 1, probes * 5 // 4)
    return min(probes, index.lists)


def _probability_errors(
    index: IvfVectors, tail: Tail, queries: Queries, scale: float, probes: int | None
) -> NDArray[np.float64]:
    """How far each query's best match's probability is from the exact one: float64 [N]."""
    assert queries.probability is not None
    estimates = np.zeros(len(queries.vectors))
    for number, query in enumerate(queries.vectors):
        near = index.near(query[None], probes=probes, for_probability=True)
        probe = index.probe(query[None], near)[0]
        if len(probe.rows):
            unseen = tail.scores(query)[tail.outside(probe.lists)]
            estimates[number] = top_probability(probe.scores, unseen, tail.weight, scale)
    return np.abs(estimates - queries.probability)


def _low_cosine(index: IvfVectors, queries: Queries) -> float:
    return float(np.percentile(index.nearest_centre(queries.vectors), _LOW))


def _exact_probability(
    queries: Vectors,
    best: Vectors,
    vectors: Vectors,
    scale: float,
    on_progress: Callable[[int, int], None],
) -> NDArray[np.float64]:
    """Softmax over all rows, at the best row: float64 [N]."""
    total = np.zeros(len(queries))
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        scores = queries @ vectors[start : start + _ROWS_AT_ONCE].T
        total += np.exp(scale * (scores - best[:, None])).sum(axis=1, dtype=np.float64)
        on_progress(min(start + _ROWS_AT_ONCE, len(vectors)), len(vectors))
    return 1 / total
