"""What a search answers with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from indexer.categories.category import JSON

ProbabilityKind = Literal["exact", "estimated", "sigmoid"]


@dataclass(frozen=True)
class Match:
    """One category that an image may show.

    score: cosine in [-1, 1]; of several names of one category, the best one's
    probability: softmax over all categories of the index, or the model's sigmoid
    rank: 1 for the best
    background: a category that wins only to say `unknown`
    """

    label: str
    score: float
    probability: float
    rank: int
    metadata: Mapping[str, JSON] = field(default_factory=dict)
    group: str | None = None
    background: bool = False


@dataclass(frozen=True)
class GroupMatch:
    """A group and the sum of its categories' probabilities (their maximum for a sigmoid model)."""

    group: str
    probability: float
    rank: int


@dataclass(frozen=True)
class Ranking:
    """All that is known about one query.

    matches: the best categories, best first
    groups: the best groups, best first; empty where no category has one
    probability_kind: "exact", "estimated" (the tail's mass comes from a sample), or "sigmoid"
    """

    matches: tuple[Match, ...]
    groups: tuple[GroupMatch, ...]
    probability_kind: ProbabilityKind
