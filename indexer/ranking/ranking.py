"""How cosines become probabilities, and which categories are the best.

Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
2021, section 3.1.4 (softmax of scaled cosines); Zhai et al., Sigmoid Loss for Language Image
Pre-Training, 2023, section 3.2 (sigmoid with scale and bias); Guo et al., On Calibration of Modern
Neural Networks, 2017, section 4.2 (temperature).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from indexer.categories.other_categories import log_mass
from indexer.categories.table import CategoryTable
from indexer.ranking.match import GroupMatch, Match, ProbabilityKind, Ranking
from indexer.vectors.flat import FlatVectors
from indexer.vectors.ivf import IvfVectors, Probe
from indexer.vectors.tail import Tail, softmax_weights
from models.encoder import Vectors

Mode = Literal["single", "multi"]


Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Odds:
    """Logits of cosines.

    A softmax model's categories compete (`single`); for independent probabilities (`multi`) each
    is set against other categories, see `indexer.categories.other_categories`. A sigmoid model's
    are independent anyway.

    scale, bias: the model's own; bias is None for a softmax model
    temperature: divides a softmax model's logits; 1 unless calibrated
    slope, offset: applied to the logits of independent probabilities; 1 and 0 unless calibrated
    """

    scale: float
    bias: float | None
    temperature: float = 1.0
    slope: float = 1.0
    offset: float = 0.0

    @property
    def is_softmax(self) -> bool:
        """Whether the categories compete: their probabilities add up to one."""
        return self.bias is None

    @property
    def factor(self) -> float:
        """On the cosine, before a softmax."""
        return self.scale / self.temperature

    def independent(
        self, scores: NDArray[np.floating], others: NDArray[np.floating], size: int
    ) -> Floats:
        """Logits for sigmoids: cosines of one image, [C] -> float64 [C].

        others: cosines of a sample of the other categories with the same image, [S]; size: how
            many other categories there are
        """
        against = -self.bias if self.bias is not None else log_mass(others, self.scale, size)
        return self.slope * (self.scale * scores.astype(np.float64) - against) + self.offset


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))


def best(scores: Vectors, count: int) -> NDArray[np.int64]:
    """Positions of the `count` greatest, greatest first; equals in order of position.

    scores: float32 [C]; returns int64 [min(count, C)].
    """
    if count < len(scores):
        # The count-th greatest value, then everything above it and the first of its equals:
        # argpartition alone would pick any of the equals.
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        above = np.flatnonzero(scores > least)
        equal = np.flatnonzero(scores == least)[: count - len(above)]
        chosen = np.sort(np.concatenate([above, equal]))
    else:
        chosen = np.arange(len(scores))
    return chosen[np.argsort(-scores[chosen], kind="stable")]


# ---- From query vectors to ranked categories with their probabilities.


Positions = NDArray[np.int64]


_SCORES_AT_ONCE = 1 << 24  # floats of one block of scores: 64 MB


@dataclass(frozen=True)
class Evidence:
    """The cosines of one image that its probabilities follow from.

    positions: of the categories compared, int64 [H]; scores: their cosines, float32 [H]
    unseen: of a sample of the others, float32 [U], and unseen_positions, int64 [U]; each of them
        stands for `weight` categories
    others: of a sample of the other categories that independent probabilities are set against,
        float32 [S]
    """

    positions: Positions
    scores: Vectors
    unseen: Vectors
    unseen_positions: Positions
    weight: float
    others: Vectors


@dataclass(frozen=True)
class Replaced:
    """Cosines that take the place of an index's own, from someone who knows some categories better.

    positions: of those categories, int64 [T], each once; scores: float32 [N, T], one row a query
    """

    positions: Positions
    scores: Vectors

    def within(self, evidence: Evidence, query: int) -> Evidence:
        """One query's evidence with these cosines in it, all of them counted as seen."""
        others = np.isin(evidence.positions, self.positions, invert=True)
        positions = np.concatenate([evidence.positions[others], self.positions])
        scores = np.concatenate([evidence.scores[others], self.scores[query]])
        order = np.argsort(positions, kind="stable")  # equals rank in order of position
        unseen = np.isin(evidence.unseen_positions, self.positions, invert=True)
        return Evidence(
            positions[order],
            scores[order],
            evidence.unseen[unseen],
            evidence.unseen_positions[unseen],
            evidence.weight,
            evidence.others,
        )


class Ranker:
    """Ranks the categories of one index; safe to use from many threads.

    other_rows: how many of the vectors, the last ones, stand for no category but for everyday words
    """

    def __init__(
        self,
        table: CategoryTable,
        vectors: FlatVectors | IvfVectors,
        odds: Odds,
        other_rows: int,
    ) -> None:
        self._table = table
        self._vectors = vectors
        self._odds = odds
        self._other_rows = other_rows
        self._tail = Tail(vectors, table.starts) if isinstance(vectors, IvfVectors) else None
        self._category_of = np.repeat(np.arange(len(table)), np.diff(table.starts))

    def kind(self, mode: Mode) -> ProbabilityKind:
        """What the probabilities of a ranking in this mode are."""
        if mode == "multi" or not self._odds.is_softmax:
            return "sigmoid"
        return "exact" if self._tail is None else "estimated"

    def rank(
        self, queries: Vectors, top_k: int, mode: Mode, replaced: Replaced | None = None
    ) -> list[Ranking]:
        """float32 [N, D] -> N rankings of at most `top_k` categories."""
        weighed = enumerate(self.weigh(queries, top_k))
        if replaced is None:
            return [self._ranking(evidence, self._odds, top_k, mode) for _, evidence in weighed]
        # A calibration was fitted to the index's own cosines; these come with the model's scale.
        odds = Odds(self._odds.scale, self._odds.bias)
        return [
            self._ranking(replaced.within(evidence, query), odds, top_k, mode)
            for query, evidence in weighed
        ]

    def weigh(self, queries: Vectors, least: int) -> Iterator[Evidence]:
        """Compare each query with the categories, at least with `least` of them.

        queries: float32 [N, D]
        """
        if isinstance(self._vectors, IvfVectors):
            for query in queries:
                yield self._weigh_lists(query, least)
            return
        block = max(1, _SCORES_AT_ONCE // len(self._vectors))
        positions = np.arange(len(self._table))
        none = np.empty(0, dtype=np.float32)
        for start in range(0, len(queries), block):
            for scores in self._vectors.scores(queries[start : start + block]):
                own, words = np.split(scores, [len(scores) - self._other_rows])
                if self._table.has_synonyms:
                    own = np.maximum.reduceat(own, self._table.starts[:-1])
                others = words if self._other_rows else own
                yield Evidence(positions, own, none, none.astype(np.int64), 1.0, others)

    def _weigh_lists(self, query: Vectors, least: int) -> Evidence:
        assert self._tail is not None
        probe, positions, scores = self._head(query, least)
        sampled = self._tail.scores(query)
        outside = self._tail.outside(probe.lists)
        return Evidence(
            positions,
            scores,
            sampled[outside],
            self._tail.categories[outside],
            self._tail.weight,
            sampled,
        )

    def _ranking(self, evidence: Evidence, odds: Odds, top_k: int, mode: Mode) -> Ranking:
        positions = evidence.positions
        if self.kind(mode) == "sigmoid":
            size = max(len(self._table), self._other_rows)
            logits = odds.independent(evidence.scores, evidence.others, size)
            shares = sigmoid(logits)
            groups = self._group_masses(positions, shares, np.maximum)
        else:
            shares = softmax_weights(evidence.scores, evidence.unseen, evidence.weight, odds.factor)
            everyone = np.concatenate([positions, evidence.unseen_positions])
            groups = self._group_masses(everyone, shares, np.add)
        matches = tuple(
            self._match(int(positions[at]), float(evidence.scores[at]), float(shares[at]), rank)
            for rank, at in enumerate(best(evidence.scores, top_k), start=1)
        )
        return Ranking(matches, self._groups(groups, top_k), self.kind(mode))

    def _head(self, query: Vectors, top_k: int) -> tuple[Probe, Positions, Vectors]:
        """The nearest lists, and the categories in them: int64 [H], float32 [H].

        As many lists as the index was tuned to, and more where they hold fewer than `top_k`.
        """
        assert isinstance(self._vectors, IvfVectors)
        factor = 1
        while True:
            near = self._vectors.near(query[None], for_probability=True, factor=factor)
            probe = self._vectors.probe(query[None], near)[0]
            positions, scores = self._best_names(probe)
            if len(positions) >= top_k or len(probe.lists) == self._vectors.lists:
                return probe, positions, scores
            factor *= 4

    def _best_names(self, probe: Probe) -> tuple[Positions, Vectors]:
        """Each category once, with its best row's cosine."""
        if not self._table.has_synonyms:
            return probe.rows, probe.scores
        positions = self._category_of[probe.rows]
        order = np.lexsort((-probe.scores, positions))
        positions, scores = positions[order], probe.scores[order]
        first = np.ones(len(positions), dtype=np.bool_)
        first[1:] = positions[1:] != positions[:-1]
        return positions[first], scores[first]

    def _group_masses(
        self, positions: Positions, probabilities: Floats, combine: np.ufunc
    ) -> Floats | None:
        """Of each group, the sum of competing probabilities or the best independent one."""
        if not self._table.groups:
            return None
        groups = self._table.group_of[positions]
        member = groups >= 0
        masses = np.zeros(len(self._table.groups))
        combine.at(masses, groups[member], probabilities[member])
        return masses

    def _groups(self, masses: Floats | None, top_k: int) -> tuple[GroupMatch, ...]:
        if masses is None:
            return ()
        order = np.argsort(-masses, kind="stable")[:top_k]
        return tuple(
            GroupMatch(self._table.groups[group], float(masses[group]), rank)
            for rank, group in enumerate(order, start=1)
        )

    def _match(self, position: int, score: float, probability: float, rank: int) -> Match:
        group = int(self._table.group_of[position])
        return Match(
            label=self._table.label(position),
            score=max(-1.0, min(1.0, score)),  # rounding can leave a unit vector's cosine at 1 + e
            probability=probability,
            rank=rank,
            metadata=self._table.metadata(position),
            group=self._table.groups[group] if group >= 0 else None,
            background=bool(self._table.background[position]),
        )
