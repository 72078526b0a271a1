"""From an answer of the index to what a client reads."""

from __future__ import annotations

from typing import Any

from indexer import Match
from indexer.answer import Answer


def answer_json(answer: Answer) -> dict[str, Any]:
    """One image's result: its matches, and whether any of them is to be believed."""
    result: dict[str, Any] = {
        "matches": [match_json(match) for match in answer.matches],
        "unknown": answer.unknown,
        "probability_kind": answer.probability_kind,
    }
    if answer.reason is not None:
        result["reason"] = answer.reason
    if answer.groups:
        result["groups"] = [
            {"group": group.group, "probability": group.probability, "rank": group.rank}
            for group in answer.groups
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
