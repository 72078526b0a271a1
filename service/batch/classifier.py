"""The encode and search stages: prepared images to rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from indexer import Answer, Policy
from models import Encoder
from models.encoder import Vectors
from service.batch.item import Item
from service.batch.prepare import Prepared, prepare
from service.batch.rows import Origin, Row, answered_row, failed_row

# What the towers take at once. More gains nothing on a CPU and holds more pixels.
_BATCH_CPU, _BATCH_GPU = 32, 256


@dataclass(frozen=True)
class Question:
    """What is asked of every image, beside the categories.

    max_pixels: width x height of one image
    embeddings: whether the vectors are wanted, too
    origin: what the rows say answered; None for the encoder's model and labels of no index
    """

    top_k: int
    policy: Policy
    max_pixels: int
    embeddings: bool = False
    origin: Origin | None = None


class Categories(Protocol):
    """What images are compared with: a `CategoryIndex`, or a tuned head over one."""

    def check_encoder(self, encoder: Encoder) -> None:
        """Raises: WrongModelError if the encoder's vectors can't be compared."""

    def answer(self, queries: Vectors, top_k: int, policy: Policy) -> list[Answer]:
        """float32 [N, D] -> N answers. Raises: PolicyError."""


class Classifier:
    """One encoder, one set of categories, one question. Safe to use from many threads.

    Raises: WrongModelError if the categories are of another model; PolicyError if they can't
    answer the question.
    """

    def __init__(self, encoder: Encoder, categories: Categories, question: Question) -> None:
        categories.check_encoder(encoder)
        self.question, self.dim = question, encoder.dim
        self._encoder, self._categories = encoder, categories
        self.origin = question.origin or Origin(encoder.model_id)
        self.batch_size = _BATCH_CPU if encoder.device == "cpu" else _BATCH_GPU
        # Whether the policy can be applied shows here, before any image is read.
        categories.answer(np.empty((0, encoder.dim), np.float32), question.top_k, question.policy)

    def prepare(self, item: Item) -> Prepared:
        """Read, decode and preprocess one image. Raises: StorageUnreachableError."""
        return prepare(
            item,
            preprocess=self._encoder.preprocess,
            image_size=self._encoder.image_size,
            max_pixels=self.question.max_pixels,
        )

    def encode(self, batch: Sequence[Prepared]) -> Vectors:
        """Images with pixels -> float32 [N, D], rows of unit norm."""
        pixels = [image.pixels for image in batch if image.pixels is not None]
        if len(pixels) != len(batch):
            raise ValueError("only images that could be prepared can be encoded")
        if not pixels:
            return np.empty((0, self._encoder.dim), np.float32)
        return self._encoder.encode_pixels(np.stack(pixels))

    def rows(self, batch: Sequence[Prepared], vectors: Vectors) -> list[Row]:
        """The rows of encoded images: vectors float32 [N, D] of `encode`."""
        question = self.question
        answers = self._categories.answer(vectors, question.top_k, question.policy) if batch else []
        return [
            answered_row(image.name, answer, self.origin)
            for image, answer in zip(batch, answers, strict=True)
        ]

    def failed(self, image: Prepared) -> Row:
        """The row of an image that couldn't be prepared."""
        return failed_row(image.name, image.error or "", self.origin)

    def vector_or_none(self) -> Vectors | None:
        """What stands for the vector of a failed image: NaN [D]; None if none are wanted."""
        if not self.question.embeddings:
            return None
        return np.full(self._encoder.dim, np.nan, np.float32)
