"""From an answer of the index to what a client reads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexer import Category, CategoryIndex, Match, PromptCache
from indexer.ranking.answer import Answer, Policy
from indexer.ranking.ranking import Replaced
from models.encoder import Encoder, Vectors
from service.inference.engine import Engine
from service.serving.assignments import AdapterRef
from service.serving.catalog import Served

if TYPE_CHECKING:
    from training.adapters.adapter import Adapter, AdapterManifest


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


# ---- A tuned head and an index that answer together: one ranking of tuned and zero-shot
# categories.
#
# Every class of the head takes the place of the index's category of that name, or joins the index
# as
# a category of its own. Its cosine is the one that gives the head's logit at the model's own scale:
#
#     score = (logit - bias) / scale        then one softmax over all categories, as ever
#
# (Heads that only tell their own classes apart are brought to zero-shot's level first, see
# `training.heads.FeatureHead.at_level`: an image of anything else is answered as before.)


@dataclass(frozen=True, eq=False)
class TunedHead:
    """An index with the head's classes in it, and the head.

    positions: of each class in the index, int64 [C]; two classes may be names of one category
    """

    index: CategoryIndex
    adapter: Adapter
    positions: NDArray[np.int64]

    @classmethod
    def over(cls, index: CategoryIndex, adapter: Adapter) -> TunedHead:
        """The head over an index that has a category for each of its classes."""
        return cls(index, adapter, index.positions(adapter.manifest.classes, synonyms=True))

    def check_encoder(self, encoder: Encoder) -> None:
        """Raises: WrongModelError if the encoder's vectors don't belong into the index."""
        self.index.check_encoder(encoder)

    def answer(self, queries: Vectors, top_k: int, policy: Policy) -> list[Answer]:
        """As `CategoryIndex.answer`: float32 [N, D] -> N answers."""
        scores = self._scores(queries)
        order = np.argsort(self.positions, kind="stable")
        unique, starts = np.unique(self.positions[order], return_index=True)
        best: Vectors = np.maximum.reduceat(scores[:, order], starts, axis=1)
        seen = np.asarray(self.adapter.project(queries), dtype=np.float32)
        return self.index.answer(seen, top_k, policy, replaced=Replaced(unique, best))

    def _scores(self, queries: Vectors) -> Vectors:
        """The head's logits as cosines: float32 [N, C]."""
        manifest = self.adapter.manifest
        logits = np.asarray(self.adapter.ranked(queries), dtype=np.float64)
        scores: Vectors = ((logits - (manifest.logit_bias or 0)) / manifest.logit_scale).astype(
            np.float32
        )
        return scores


def with_classes(
    index: CategoryIndex, manifest: AdapterManifest, encoder: Encoder, cache: PromptCache
) -> CategoryIndex:
    """The index, with a category for each class that it lacks. Encodes those classes' prompts.

    Raises: WrongModelError, CategoryError.
    """
    there = index.positions(manifest.classes, synonyms=True)
    missing = [
        Category(label, prompts=prompts)
        for label, prompts, at in zip(manifest.classes, manifest.prompts, there, strict=True)
        if at < 0
    ]
    return index.changed(encoder, add=missing, cache=cache) if missing else index


def embedded_anew(
    index: CategoryIndex, manifest: AdapterManifest, encoder: Encoder, cache: PromptCache
) -> CategoryIndex:
    """The index in the vectors of an adapter's own model, with a category for each of its classes.

    encoder: the adapter's. Raises: CategoryError.
    """
    categories = [index.category(position) for position in range(len(index))]
    templates = (index.manifest.templates or {})["texts"]
    anew = CategoryIndex.build(categories, encoder, templates=templates, cache=cache)
    return with_classes(anew, manifest, encoder, cache)


def tuned_head(
    index: CategoryIndex, adapter: Adapter, encoder: Encoder, cache: PromptCache
) -> TunedHead:
    """The head over an index of the same model.

    Raises: WrongModelError, CategoryError.
    """
    return TunedHead.over(with_classes(index, adapter.manifest, encoder, cache), adapter)


# ---- What answers one request, from its first step to its last.


@dataclass(eq=False)
class Slot:
    """An engine and how many requests are under way in it."""

    engine: Engine
    users: int = 0
    closing: bool = False

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Keep the engine running until the block ends."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1
            self._end_if_idle()

    def close(self) -> None:
        """End the engine as soon as nobody uses it."""
        self.closing = True
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self.closing and not self.users:
            self.engine.stop()


@dataclass(frozen=True, eq=False)
class Answering:
    """An engine for the images, categories to compare them with, and perhaps a tuned head.

    served: the index as the client knows it; index: the one that is compared with, which is the
    same, or has been embedded anew with the adapter's own model
    """

    slot: Slot
    served: Served[CategoryIndex]
    index: CategoryIndex
    adapter: AdapterRef | None = None
    head: TunedHead | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.index)

    def answer(self, queries: Vectors, top_k: int, policy: Policy) -> list[Answer]:
        """float32 [N, D] of this engine -> N answers. Raises: PolicyError."""
        if self.head is not None:
            return self.head.answer(queries, top_k, policy)
        return self.index.answer(queries, top_k, policy)
