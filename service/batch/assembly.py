"""Prepared images to batches for the encoder, and encoded batches to results of whole blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from models.encoder import Vectors
from service.batch.blocks import BlockResult
from service.batch.classifier import Classifier
from service.batch.prepare import Prepared
from service.batch.rows import Row
from service.batch.seen import Known, MemorySeen, Seen

# Images in a batch, encoded or not: where nearly all are copies, results shall still come.
_MOST = 256


class Placed(NamedTuple):
    """A prepared image and where it belongs: image `offset` of the `size` of a block."""

    block: int
    offset: int
    size: int
    image: Prepared


@dataclass
class Batch:
    """Images that go through together.

    fresh: those to encode, in order
    placed: all of them, each with what is known of its content (None for an unreadable one)
    """

    fresh: list[Prepared] = field(default_factory=list)
    placed: list[tuple[Placed, Known | None, bool]] = field(default_factory=list)


class _Open:
    """A block whose rows aren't all there yet."""

    def __init__(self, size: int) -> None:
        self.rows: list[Row | None] = [None] * size
        self.vectors: list[Vectors | None] = [None] * size
        self.missing, self.duplicates = size, 0

    def result(self, number: int) -> BlockResult:
        rows = tuple(row for row in self.rows if row is not None)
        vectors = [vector for vector in self.vectors if vector is not None]
        return BlockResult(
            number, rows, np.stack(vectors) if vectors else None, duplicates=self.duplicates
        )


class Assembly:
    """Holds no more than the blocks that are under way.

    ordered: batches end with their block, so that the same images always meet in the same batch
    """

    def __init__(self, classifier: Classifier, seen: Seen, *, ordered: bool) -> None:
        self._classifier, self._seen, self._ordered = classifier, seen, ordered
        self._open: dict[int, _Open] = {}

    def batches(self, images: Iterable[Placed]) -> Iterator[Batch]:
        """Fill batches with images whose content is new; the others only go along."""
        batch = Batch()
        left: dict[int, int] = {}
        for placed in images:
            image = placed.image
            known, new = (
                self._seen.claim(image.digest) if image.pixels is not None else (None, False)
            )
            if new:
                batch.fresh.append(image)
            # Only `fresh` keeps pixels: copies may be many.
            bare = placed._replace(image=dataclasses.replace(image, pixels=None))
            batch.placed.append((bare, known, new))
            left[placed.block] = left.get(placed.block, placed.size) - 1
            at_end = left[placed.block] == 0
            if at_end:
                del left[placed.block]
            full = len(batch.fresh) == self._classifier.batch_size or len(batch.placed) == _MOST
            if full or (at_end and self._ordered):
                yield batch
                batch = Batch()
        if batch.placed:
            yield batch

    def finished(self, encoded: Iterable[tuple[Batch, Vectors]]) -> Iterator[BlockResult]:
        """The results of the blocks that each encoded batch completes."""
        for batch, vectors in encoded:
            rows = iter(self._classifier.rows(batch.fresh, vectors))
            kept = iter(vectors)
            for placed, known, new in batch.placed:
                if known is not None and new:
                    known.row = next(rows)
                    vector = next(kept)
                    known.vector = vector if self._classifier.question.embeddings else None
                result = self._add(placed, known, new)
                if result is not None:
                    yield result

    def _add(self, placed: Placed, known: Known | None, new: bool) -> BlockResult | None:
        block = self._open.setdefault(placed.block, _Open(placed.size))
        if known is None:
            block.rows[placed.offset] = self._classifier.failed(placed.image)
            block.vectors[placed.offset] = self._classifier.vector_or_none()
        else:
            if known.row is None:
                raise RuntimeError("a copy came before the image that it is a copy of")
            block.rows[placed.offset] = {**known.row, "file": placed.image.name}
            block.vectors[placed.offset] = known.vector
            block.duplicates += not new
        block.missing -= 1
        if block.missing:
            return None
        return self._open.pop(placed.block).result(placed.block)


def answer_block(classifier: Classifier, number: int, images: Sequence[Prepared]) -> BlockResult:
    """One block's result, of its prepared images, in this thread: what an actor elsewhere does.

    The batches, and so the rows, are those of an ordered `LocalEngine`, but that copies are looked
    for in this block alone.
    """
    assembly = Assembly(classifier, MemorySeen(), ordered=True)
    placed = (Placed(number, at, len(images), image) for at, image in enumerate(images))
    encoded = ((batch, classifier.encode(batch.fresh)) for batch in assembly.batches(placed))
    (result,) = assembly.finished(encoded)
    return result
