"""From query vectors to ranked categories with their probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexer.category_table import CategoryTable
from indexer.flat_vectors import FlatVectors
from indexer.ivf_vectors import IvfVectors, Probe
from indexer.match import GroupMatch, Match, ProbabilityKind, Ranking
from indexer.scoring import Floats, Mode, Odds, best, sigmoid, softmax
from indexer.tail import Tail, softmax_weights
from models.encoder import Vectors

_SCORES_AT_ONCE = 1 << 24  # floats of one block of scores: 64 MB


class Ranker:
    """Ranks the categories of one index; safe to use from many threads.

    crowd: how many of the vectors, the last ones, stand for no category but for everyday words
    """

    def __init__(
        self,
        table: CategoryTable,
        vectors: FlatVectors | IvfVectors,
        odds: Odds,
        crowd: int,
    ) -> None:
        self._table = table
        self._vectors = vectors
        self._odds = odds
        self._crowd = crowd
        self._tail = Tail(vectors, table.starts) if isinstance(vectors, IvfVectors) else None
        self._category_of = np.repeat(np.arange(len(table)), np.diff(table.starts))

    def kind(self, mode: Mode) -> ProbabilityKind:
        """What the probabilities of a ranking in this mode are."""
        if mode == "multi" or not self._odds.is_softmax:
            return "sigmoid"
        return "exact" if self._tail is None else "estimated"

    def rank(self, queries: Vectors, top_k: int, mode: Mode) -> list[Ranking]:
        """float32 [N, D] -> N rankings of at most `top_k` categories."""
        if isinstance(self._vectors, IvfVectors):
            return [self._rank_probed(query, top_k, mode) for query in queries]
        rankings = []
        block = max(1, _SCORES_AT_ONCE // len(self._vectors))
        for start in range(0, len(queries), block):
            part = queries[start : start + block]
            for scores in self._vectors.scores(part):
                rankings.append(self._rank_all(scores, top_k, mode))
        return rankings

    def _rank_all(self, scores: Vectors, top_k: int, mode: Mode) -> Ranking:
        """scores: of every row, float32 [rows + crowd]."""
        rows = len(scores) - self._crowd
        scores, crowd = scores[:rows], scores[rows:]
        if self._table.has_synonyms:
            scores = np.maximum.reduceat(scores, self._table.starts[:-1])
        positions = np.arange(len(scores))
        if mode == "single" and self._odds.is_softmax:
            probabilities = softmax(self._odds.factor * scores.astype(np.float64))
        else:
            probabilities = self._independent(scores, crowd if self._crowd else scores)
        groups = self._group_masses(positions, probabilities, mode)
        return self._ranking(positions, scores, probabilities, groups, top_k, mode)

    def _rank_probed(self, query: Vectors, top_k: int, mode: Mode) -> Ranking:
        probe, positions, scores = self._head(query, top_k)
        assert self._tail is not None
        if mode == "multi" or not self._odds.is_softmax:
            probabilities = self._independent(scores, self._tail.scores(query))
            groups = self._group_masses(positions, probabilities, mode)
        else:
            unseen, categories = self._tail.unseen(query, probe.lists)
            shares = softmax_weights(scores, unseen, self._tail.weight, self._odds.factor)
            probabilities = shares[: len(scores)]
            groups = self._group_masses(np.concatenate([positions, categories]), shares, mode)
        return self._ranking(positions, scores, probabilities, groups, top_k, mode)

    def _head(self, query: Vectors, top_k: int) -> tuple[Probe, NDArray[np.int64], Vectors]:
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

    def _best_names(self, probe: Probe) -> tuple[NDArray[np.int64], Vectors]:
        """Each category once, with its best row's cosine."""
        if not self._table.has_synonyms:
            return probe.rows, probe.scores
        positions = self._category_of[probe.rows]
        order = np.lexsort((-probe.scores, positions))
        positions, scores = positions[order], probe.scores[order]
        first = np.ones(len(positions), dtype=np.bool_)
        first[1:] = positions[1:] != positions[:-1]
        return positions[first], scores[first]

    def _independent(self, scores: Vectors, crowd: Vectors) -> Floats:
        size = max(len(self._table), self._crowd)
        return sigmoid(self._odds.independent(scores, crowd, size))

    def _group_masses(
        self, positions: NDArray[np.int64], probabilities: Floats, mode: Mode
    ) -> Floats | None:
        """Of each group, the sum of competing probabilities or the best independent one."""
        if not self._table.groups:
            return None
        groups = self._table.group_of[positions]
        member = groups >= 0
        masses = np.zeros(len(self._table.groups))
        combine = np.maximum if self.kind(mode) == "sigmoid" else np.add
        combine.at(masses, groups[member], probabilities[member])
        return masses

    def _ranking(
        self,
        positions: NDArray[np.int64],
        scores: Vectors,
        probabilities: Floats,
        groups: Floats | None,
        top_k: int,
        mode: Mode,
    ) -> Ranking:
        matches = tuple(
            self._match(int(positions[at]), float(scores[at]), float(probabilities[at]), rank)
            for rank, at in enumerate(best(scores, top_k), start=1)
        )
        return Ranking(matches, self._groups(groups, top_k), self.kind(mode))

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
