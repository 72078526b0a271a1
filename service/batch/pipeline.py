"""The stages of a batch job between the listing and the journal, in the order of the walk.

`blocks` cuts the listing; `prepare` reads and decodes one item; `Assembly.batches` fills batches;
`Classifier.encode` makes vectors of a batch and `Classifier.rows` rows of the vectors;
`Assembly.finished` puts the rows of each block together. An engine composes them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from indexer import Answer, Policy
from models import Encoder
from models.encoder import Vectors
from models.images import ImageError, decode_image
from service.batch.answer_cache import AnswerCache, CachedAnswer, MemoryCache
from service.batch.errors import ItemError
from service.batch.inputs import Item
from service.batch.rows import Origin, Row, answered_row, failed_row
from service.batch.storage import read_bytes

# ---- Consecutive items under one number: what is done and kept whole, or not at all.


# Large enough that a commit costs nothing beside the images, small enough to lose little work.
BLOCK_SIZE = 256


@dataclass(frozen=True)
class Block:
    """Items number * size ... of the listing; the last block may hold fewer."""

    number: int
    items: tuple[Item, ...]


@dataclass(frozen=True)
class BlockResult:
    """One row an item, in their order.

    vectors: float32 [len(rows), D], NaN where a row has an error; None unless they were asked for
    duplicates: rows whose answer was taken from an earlier image of the same content
    """

    number: int
    rows: tuple[Row, ...]
    vectors: Vectors | None
    duplicates: int


def blocks(items: Iterable[Item], *, size: int = BLOCK_SIZE, first: int = 0) -> Iterator[Block]:
    """Cut items into blocks, numbered from `first`."""
    rest = iter(items)
    for number in itertools.count(first):
        part = tuple(itertools.islice(rest, size))
        if not part:
            return
        yield Block(number, part)


# ---- Read and prepare: an item to what the image tower takes, on any thread, process or machine.


_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Prepared:
    """An image ready to be encoded, or why it isn't.

    digest: of the file's content; b"" where it couldn't be read
    pixels: float32 [3, H, W]; None where there is an error
    """

    name: str
    digest: bytes
    pixels: Vectors | None
    error: str | None


def prepare(
    item: Item,
    *,
    preprocess: Callable[[Image.Image], Vectors],
    image_size: tuple[int, int],
    max_pixels: int,
) -> Prepared:
    """Read, decode and preprocess one image. A bad one is told, not raised.

    preprocess, image_size: the encoder's; max_pixels: of one image, width x height
    Raises: StorageUnreachableError.
    """
    if item.error is not None:
        return Prepared(item.name, b"", None, item.error)
    digest = b""
    try:
        data = read_bytes(item.place, item.start, item.size)
        digest = hashlib.sha256(data).digest()[:_DIGEST_BYTES]
        image = decode_image(data, max_pixels=max_pixels, target=image_size)
        return Prepared(item.name, digest, preprocess(image), None)
    except (ItemError, ImageError) as error:
        return Prepared(item.name, digest, None, error.message)


# ---- The encode and search stages: prepared images to rows.


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


# ---- Prepared images to batches for the encoder, and encoded batches to results of whole blocks.


# Images in a batch, copies included: where nearly all are copies, results still come.
_BATCH_ITEMS = 256


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
    placed: list[tuple[Placed, CachedAnswer | None, bool]] = field(default_factory=list)


class _OpenBlock:
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

    def __init__(self, classifier: Classifier, cache: AnswerCache, *, ordered: bool) -> None:
        self._classifier, self._cache, self._ordered = classifier, cache, ordered
        self._open: dict[int, _OpenBlock] = {}

    def batches(self, images: Iterable[Placed]) -> Iterator[Batch]:
        """Fill batches with images whose content is new; the others only go along."""
        batch = Batch()
        left: dict[int, int] = {}
        for placed in images:
            image = placed.image
            known, new = (
                self._cache.claim(image.digest) if image.pixels is not None else (None, False)
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
            full = (
                len(batch.fresh) == self._classifier.batch_size or len(batch.placed) == _BATCH_ITEMS
            )
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

    def _add(self, placed: Placed, known: CachedAnswer | None, new: bool) -> BlockResult | None:
        block = self._open.setdefault(placed.block, _OpenBlock(placed.size))
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
    assembly = Assembly(classifier, MemoryCache(), ordered=True)
    placed = (Placed(number, at, len(images), image) for at, image in enumerate(images))
    encoded = ((batch, classifier.encode(batch.fresh)) for batch in assembly.batches(placed))
    (result,) = assembly.finished(encoded)
    return result
