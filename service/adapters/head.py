"""A tuned head and an index that answer together: one ranking of tuned and zero-shot categories.

Every class of the head takes the place of the index's category of that name, or joins the index as
a category of its own. Its cosine is the one that gives the head's logit at the model's own scale:

    score = (logit - bias) / scale        then one softmax over all categories, as ever

(Heads that only tell their own classes apart are brought to zero-shot's level first, see
`training.heads.FeatureHead.at_level`: an image of anything else is answered as before.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexer import Category, CategoryIndex, PromptCache
from indexer.answer import Answer, Policy
from indexer.ranking import Replaced
from models.encoder import Encoder, Vectors

if TYPE_CHECKING:
    from training.adapter import Adapter, AdapterManifest


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
