"""What turns vectors into answers: an index alone, or an index with an adapter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexer import Category, CategoryIndex, PromptCache
from indexer.ranking.answer import Answer, Policy
from indexer.ranking.ranking import Replaced
from models.encoder import Encoder, Vectors
from service.serving.assignments import AdapterRef

if TYPE_CHECKING:
    from training.adapters.adapter import Adapter
    from training.adapters.manifest import AdapterManifest
    from training.adapters.tuned_model import TunedModel


@dataclass(frozen=True, eq=False)
class TunedHead:
    """A tuned head and an index in one ranking of tuned and zero-shot categories.

    Every class of the head takes the place of the index's category of that name, or joins the
    index as a category of its own. Its cosine is the one that gives the head's logit at the
    model's own scale:

        score = (logit - bias) / scale        then one softmax over all categories

    Heads that only tell their own classes apart are brought to the level of zero-shot logits
    first (`training.heads.FeatureHead.at_level`), so that an image of anything else is answered
    as without the head.

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
        projected = np.asarray(self.adapter.project(queries), dtype=np.float32)
        return self.index.answer(projected, top_k, policy, replaced=Replaced(unique, best))

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


def embedded_anew(index: CategoryIndex, encoder: Encoder, cache: PromptCache) -> CategoryIndex:
    """The index's categories in the vectors of another model, with the same templates.

    Raises: CategoryError.
    """
    categories = [index.category(position) for position in range(len(index))]
    templates = (index.manifest.templates or {})["texts"]
    return CategoryIndex.build(categories, encoder, templates=templates, cache=cache)


def tuned_head(
    index: CategoryIndex, adapter: Adapter, encoder: Encoder, cache: PromptCache
) -> TunedHead:
    """The head over an index of the same model.

    Raises: WrongModelError, CategoryError.
    """
    return TunedHead.over(with_classes(index, adapter.manifest, encoder, cache), adapter)


@dataclass(frozen=True, eq=False)
class Classifier:
    """An index, an encoder for the images, and perhaps an adapter.

    categories: what is compared with: the index, a tuned head over it, or its categories in the
        vectors of the adapter's own model
    encoder: whose image vectors are compared with `categories`
    name, version: of the index; None for labels that a request brings along
    own_model: the id of the adapter's own model, if it has one
    """

    name: str | None
    version: int | None
    index: CategoryIndex
    categories: CategoryIndex | TunedHead = field(repr=False)
    encoder: Encoder = field(repr=False)
    adapter: AdapterRef | None = None
    own_model: str | None = None

    @classmethod
    def zero_shot(
        cls, name: str | None, version: int | None, index: CategoryIndex, encoder: Encoder
    ) -> Classifier:
        """The index without an adapter."""
        return cls(name, version, index, index, encoder)

    @classmethod
    def adapted(
        cls,
        plain: Classifier,
        ref: AdapterRef,
        loaded: Adapter | TunedModel,
        encoder: Encoder,
        cache: PromptCache,
    ) -> Classifier:
        """The classifier `plain` with an adapter.

        loaded: of the version `ref`
        encoder: of the adapter's own model if it has one, else that of `plain`
        Raises: WrongModelError, CategoryError.
        """
        from training.adapters.adapter import Adapter

        index, own_model = plain.index, None
        categories: CategoryIndex | TunedHead
        if isinstance(loaded, Adapter):
            categories = tuned_head(index, loaded, encoder, cache)
        else:
            anew = embedded_anew(index, encoder, cache)
            categories = with_classes(anew, loaded.manifest, encoder, cache)
            own_model = loaded.model_id
        return cls(plain.name, plain.version, index, categories, encoder, ref, own_model)

    def __len__(self) -> int:
        head = self.categories
        return len(head.index if isinstance(head, TunedHead) else head)

    def answer(self, queries: Vectors, top_k: int, policy: Policy) -> list[Answer]:
        """float32 [N, D] of `encoder` -> N answers. Raises: PolicyError."""
        return self.categories.answer(queries, top_k, policy)
