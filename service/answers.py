"""From a ranking to what a client reads."""

from __future__ import annotations

from typing import Any

from indexer import Match, Ranking
from service.classify_options import ClassifyOptions


def answer(ranking: Ranking, options: ClassifyOptions) -> dict[str, Any]:
    """One image's result: its matches, and whether the best one is good enough to be believed."""
    best = ranking.matches[0]
    unknown = (
        best.background
        or best.probability < options.min_probability
        or best.score < options.min_score
    )
    result: dict[str, Any] = {
        "matches": [match_json(match) for match in ranking.matches],
        "unknown": unknown,
        "probability_kind": ranking.probability_kind,
    }
    if ranking.groups:
        result["groups"] = [
            {"group": group.group, "probability": group.probability, "rank": group.rank}
            for group in ranking.groups
        ]
    return result


def match_json(match: Match) -> dict[str, Any]:
    """One match; what its category doesn't have is left out."""
    value: dict[str, Any] = {
        "label": match.label,
        "score": match.score,
        "probability": match.probability,
        "rank": match.rank,
    }
    if match.group is not None:
        value["group"] = match.group
    if match.background:
        value["background"] = True
    if match.metadata:
        value["metadata"] = match.metadata
    return value
