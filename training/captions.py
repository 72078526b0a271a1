"""Captions for drawings: what a concept is called, in many wordings, and which concepts fit them.

A caption made of keywords may fit several concepts ("animal, farm"); the target of a caption is
therefore a distribution over concepts, uniform over all that it fits.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch

from training.pictograms import Concept

TEMPLATES = (
    "{}",
    "{}",
    "{}",
    "a photo of a {}",
    "a photo of {}",
    "a drawing of a {}",
    "a drawing of {}",
    "an icon of a {}",
    "an icon of {}",
    "a pictogram of a {}",
    "an emoji of a {}",
    "the {} emoji",
    "a picture of a {}",
    "an image of a {}",
    "a flat icon of a {}",
    "a line drawing of a {}",
    "a sketch of a {}",
    "a cartoon {}",
    "pixel art of a {}",
    "a pixel art {}",
    "clip art of a {}",
    "a symbol of a {}",
    "a sign showing a {}",
    "an illustration of a {}",
    "a 3d render of a {}",
    "a sticker of a {}",
    "a black and white {}",
    "a small {}",
    "this is a {}",
)


@dataclass(frozen=True)
class Caption:
    """One wording and the rows of all concepts that it fits."""

    text: str
    fits: tuple[int, ...]


class Captioner:
    """Draws captions for concepts.

    concepts: all concepts; rows in captions' `fits` point into it.
    keyword_share: how often a caption is made of one or two keywords instead of the name.
    """

    def __init__(self, concepts: list[Concept], *, keyword_share: float = 0.4) -> None:
        self._concepts = concepts
        self._keyword_share = keyword_share
        self._rows_of: dict[str, set[int]] = {}
        for row, concept in enumerate(concepts):
            for keyword in concept.keywords:
                self._rows_of.setdefault(keyword, set()).add(row)

    def draw(self, row: int, chance: random.Random) -> Caption:
        """One caption for the concept at `row`."""
        concept = self._concepts[row]
        template = chance.choice(TEMPLATES)
        if concept.keywords and chance.random() < self._keyword_share:
            picked = chance.sample(
                concept.keywords, k=min(len(concept.keywords), chance.choice((1, 2)))
            )
            fits = set.intersection(*(self._rows_of[keyword] for keyword in picked))
            text = chance.choice((" ", ", ", " with ", " and ")).join(picked)
            return Caption(template.format(text), tuple(sorted(fits)))
        return Caption(template.format(concept.name), (row,))


def targets(captions: list[Caption], concepts: int) -> torch.Tensor:
    """float32 [B, concepts]: each row uniform over the concepts that its caption fits."""
    target = torch.zeros(len(captions), concepts)
    for index, caption in enumerate(captions):
        target[index, list(caption.fits)] = 1 / len(caption.fits)
    return target
