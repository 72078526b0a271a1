"""One image's answer as JSON: in the answers over HTTP and in the rows of a batch."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from indexer import Match
from indexer.ranking.answer import Answer


class MatchAnswer(BaseModel):
    """One category; `group`, `background` and `metadata` only where the category has them."""

    label: str
    score: float = Field(description="cosine in [-1, 1]")
    probability: float = Field(description="over all categories of the index")
    rank: int
    group: str | None = None
    background: bool = False
    metadata: dict[str, Any] = {}

    @classmethod
    def of(cls, match: Match) -> MatchAnswer:
        """One match; what its category doesn't have is left unset."""
        more: dict[str, Any] = {}
        if match.group is not None:
            more["group"] = match.group
        if match.background:
            more["background"] = True
        if match.metadata:
            more["metadata"] = match.metadata
        # Not validated: the fields are an Answer's, and there may be 64,000 of them in a request.
        return cls.model_construct(
            label=match.label,
            score=match.score,
            probability=match.probability,
            rank=match.rank,
            **more,
        )


class GroupAnswer(BaseModel):
    """A group of categories and their joint probability."""

    group: str
    probability: float
    rank: int


class ImageAnswer(BaseModel):
    """One image's result: its matches, and whether the best one passes the request's limits."""

    matches: list[MatchAnswer]
    unknown: bool = False
    reason: str | None = Field(None, description="why it is unknown")
    probability_kind: Literal["exact", "estimated", "sigmoid"] = "exact"
    groups: list[GroupAnswer] = []

    @classmethod
    def of(cls, answer: Answer, **more: Any) -> Self:
        """An answer of an index.

        more: further fields of a subclass
        """
        if answer.reason is not None:
            more["reason"] = answer.reason
        if answer.groups:
            more["groups"] = [
                GroupAnswer.model_construct(
                    group=group.group, probability=group.probability, rank=group.rank
                )
                for group in answer.groups
            ]
        return cls.model_construct(
            matches=[MatchAnswer.of(match) for match in answer.matches],
            unknown=answer.unknown,
            probability_kind=answer.probability_kind,
            **more,
        )


def answer_json(answer: Answer) -> dict[str, Any]:
    """An answer as plain data."""
    return ImageAnswer.of(answer).model_dump(exclude_unset=True)
