"""What is told of one image: the same row in every format and from every engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

from indexer.ranking.answer import Answer
from service.serving.answers import answer_json


class Row(TypedDict):
    """One image's result, as JSON has it.

    file: the item's name
    label: the best match's, None where the image is unknown or unreadable
    score, probability: of the best match, also of an unknown image; None of an unreadable one
    matches, reason, groups, probability_kind: as in the answer of POST /v1/classify; matches are
        empty, the others None, where there is nothing to tell
    model, index, index_version, adapter: what answered; the last three are None where labels were
        given, the last one where words alone answered
    error: why the image couldn't be read, else None
    """

    file: str
    label: str | None
    score: float | None
    probability: float | None
    unknown: bool | None
    reason: str | None
    probability_kind: str | None
    matches: list[dict[str, Any]]
    groups: list[dict[str, Any]] | None
    model: str
    index: str | None
    index_version: int | None
    adapter: str | None
    error: str | None


@dataclass(frozen=True)
class Origin:
    """What answered, as every row of a run says it. adapter: as NAME@VERSION."""

    model: str
    index: str | None = None
    index_version: int | None = None
    adapter: str | None = None


def answered_row(file: str, answer: Answer, origin: Origin) -> Row:
    """The row of an image that was read."""
    told = answer_json(answer)
    best = answer.matches[0] if answer.matches else None
    return Row(
        file=file,
        label=None if best is None or answer.unknown else best.label,
        score=None if best is None else best.score,
        probability=None if best is None else best.probability,
        unknown=answer.unknown,
        reason=answer.reason,
        probability_kind=answer.probability_kind,
        matches=told["matches"],
        groups=told.get("groups"),
        model=origin.model,
        index=origin.index,
        index_version=origin.index_version,
        adapter=origin.adapter,
        error=None,
    )


def failed_row(file: str, error: str, origin: Origin) -> Row:
    """The row of an image that couldn't be read."""
    return Row(
        file=file,
        label=None,
        score=None,
        probability=None,
        unknown=None,
        reason=None,
        probability_kind=None,
        matches=[],
        groups=None,
        model=origin.model,
        index=origin.index,
        index_version=origin.index_version,
        adapter=origin.adapter,
        error=error,
    )
