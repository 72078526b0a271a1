"""This machine as an engine: threads that decode, one that encodes, bounded queues between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from typing import NamedTuple, TypeVar

from models.encoder import Vectors
from models.machine import cpu_count
from service.batch.answer_cache import AnswerCache
from service.batch.inputs import Item
from service.batch.pipeline import Assembly, Batch, Block, BlockResult, Classifier, Placed

T = TypeVar("T")
R = TypeVar("R")

# Reading from remote storage is waiting; more threads wait for more files at once.
REMOTE_READERS = 16
# Batches whose pixels may lie ready, so that the encoder doesn't wait for one slow image.
_BATCHES_AHEAD = 2


def ahead(
    work: Callable[[T], R],
    values: Iterable[T],
    *,
    pool: Executor,
    window: int,
    ordered: bool = True,
) -> Iterator[R]:
    """The results of `work` on each value, up to `window` of them begun before they are taken.

    ordered: as the values come; else as the results do
    """
    begun: dict[Future[R], None] = {}  # in the order of the values
    for value in values:
        begun[pool.submit(work, value)] = None
        if len(begun) >= window:
            yield _take(begun, ordered=ordered)
    while begun:
        yield _take(begun, ordered=ordered)


def _take(begun: dict[Future[R], None], *, ordered: bool) -> R:
    if ordered:
        future = next(iter(begun))
    else:
        done = wait(begun, return_when=FIRST_COMPLETED).done
        future = next(one for one in begun if one in done)
    del begun[future]
    return future.result()


class _Place(NamedTuple):
    block: int
    offset: int
    size: int
    item: Item


class LocalEngine:
    """Decodes on threads while one thread encodes.

    Decoding, resizing and the encoder leave Python's lock while they work, and threads hand pixels
    over without copying them, which processes would have to (`benchmarks.batch_decode`).

    cache: answers that needn't be computed again; it is committed before a result is handed out
    readers: threads that read and decode; None for one a processor
    """

    def __init__(
        self,
        classifier: Classifier,
        cache: AnswerCache,
        *,
        ordered: bool = True,
        readers: int | None = None,
    ) -> None:
        self.ordered = ordered
        self._classifier, self._cache = classifier, cache
        self._readers = cpu_count() if readers is None else readers

    def results(self, blocks: Iterable[Block]) -> Iterator[BlockResult]:
        """See `Engine`."""
        assembly = Assembly(self._classifier, self._cache, ordered=self.ordered)
        readers = ThreadPoolExecutor(self._readers, "clipdex-read")
        encoder = ThreadPoolExecutor(1, "clipdex-encode")
        try:
            images = ahead(
                self._prepare,
                _places(blocks),
                pool=readers,
                window=_BATCHES_AHEAD * self._classifier.batch_size + self._readers,
                ordered=self.ordered,
            )
            encoded = ahead(self._encode, assembly.batches(images), pool=encoder, window=2)
            for result in assembly.finished(encoded):
                self._cache.commit()
                yield result
        finally:
            readers.shutdown(cancel_futures=True)
            encoder.shutdown(cancel_futures=True)

    def _prepare(self, place: _Place) -> Placed:
        image = self._classifier.prepare(place.item)
        return Placed(place.block, place.offset, place.size, image)

    def _encode(self, batch: Batch) -> tuple[Batch, Vectors]:
        return batch, self._classifier.encode(batch.fresh)


def _places(blocks: Iterable[Block]) -> Iterator[_Place]:
    for block in blocks:
        for offset, item in enumerate(block.items):
            yield _Place(block.number, offset, len(block.items), item)
