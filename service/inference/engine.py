"""Images and texts to vectors for the request handlers: decode on threads, encode in batches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from typing import TypeVar

from models import Encoder
from models.encoder import Vectors
from models.errors import ClipdexError
from models.images import decode_image
from models.machine import cpu_count
from service.errors import ParameterError, QueueFullError, UnforeseenError
from service.inference.metrics import Metrics
from service.inference.queue import BatchQueue, ImageTask
from service.inference.result_queue import ResultQueue
from service.inference.shared_encoder import SharedEncoder, TextCache
from service.inference.worker import EncoderWorker, WorkerState
from service.settings import Settings

log = logging.getLogger("clipdex")
T = TypeVar("T")
# Threads that mostly wait: for the disk, or for a turn at the encoder.
_HELPERS = 8
_MOST_HELPED = 128


class Engine:
    """The encoder and everything around it, seen from the event loop.

    load: makes the encoder; called on the encoder's own thread, again if the encoder dies
    """

    def __init__(self, settings: Settings, load: Callable[[], Encoder], metrics: Metrics) -> None:
        self._settings = settings
        self._queue = BatchQueue(
            size=settings.queue_size,
            max_batch=settings.max_batch,
            wait=settings.batch_wait_ms / 1000,
        )
        self.worker = EncoderWorker(load, self._queue, metrics)
        self._metrics = metrics
        self._texts = TextCache(settings.text_cache)
        # Decoding may use the cores that the encoder leaves; more threads would only take turns.
        self._decoders = ThreadPoolExecutor(cpu_count(), "clipdex-decode")
        self._helpers = ThreadPoolExecutor(_HELPERS, "clipdex-helper")
        self._helped = 0

    def start(self) -> None:
        """Begin to load the encoder; returns at once. Call on the event loop."""
        self._results: ResultQueue[Vectors] = ResultQueue()
        self.worker.start()

    def stop(self) -> None:
        """End all threads; what waits fails."""
        self.worker.stop()
        self._decoders.shutdown(cancel_futures=True)
        self._helpers.shutdown(cancel_futures=True)

    @property
    def state(self) -> WorkerState:
        """What the encoder is doing now."""
        return self.worker.state

    @property
    def encoder(self) -> Encoder:
        """The encoder in use, for its attributes. Raises: NotReadyError."""
        return self.worker.encoder

    def shared_encoder(self, *, cached: bool) -> SharedEncoder:
        """The encoder for work beside the requests, with or without the ad-hoc labels' cache.

        Raises: NotReadyError.
        """
        return SharedEncoder(self.encoder, self._queue, self._texts if cached else None)

    def check_room(self) -> None:
        """Refuse early, before a body is read. Raises: NotReadyError, QueueFullError."""
        _ = self.encoder
        self._queue.check_room()

    async def embed_images(self, blobs: Sequence[bytes]) -> list[Vectors | ClipdexError]:
        """Encoded image files to vectors [D]; in place of an image that fails, its error.

        Raises: NotReadyError, QueueFullError.
        """
        encoder = self.encoder
        self._queue.admit(len(blobs))
        self._metrics.waiting(self._queue.waiting)
        futures: list[Future[Vectors]] = [Future() for _ in blobs]
        for blob, future in zip(blobs, futures, strict=True):
            self._decoders.submit(self._prepare, blob, encoder, future)
        waiters = [self._results.wait_for(future) for future in futures]
        results = await asyncio.gather(*waiters, return_exceptions=True)
        return [self._outcome(result) for result in results]

    async def embed_texts(self, texts: Sequence[str], *, param: str) -> tuple[Vectors, int]:
        """N texts -> float32 [N, D], and how many tokens they have.

        param: what the request calls the texts, for errors
        Raises: ParameterError for an empty text, too many, or one too long; NotReadyError,
        QueueFullError.
        """
        if len(texts) > self._settings.max_labels:
            most = self._settings.max_labels
            raise ParameterError(f"{len(texts)} texts; the most is {most}", param=param)
        for at, text in enumerate(texts):
            if not text.strip():
                raise ParameterError(f"{param}[{at}] is empty", param=f"{param}[{at}]")
        encoder = self.shared_encoder(cached=True)

        def encode() -> tuple[Vectors, int]:
            counts = encoder.count_tokens(texts)
            for at, count in enumerate(counts):
                if count > encoder.context_length:
                    raise ParameterError(
                        f"{param}[{at}] has {count} tokens; {encoder.model_id} reads at most "
                        f"{encoder.context_length}: shorten it",
                        param=f"{param}[{at}]",
                    )
            return encoder.encode_texts(texts), sum(counts)

        return await self.run(encode)

    async def run(self, work: Callable[[], T]) -> T:
        """Run blocking work on a thread. Raises: QueueFullError."""
        if self._helped >= _MOST_HELPED:
            raise QueueFullError("too many requests are waiting; try again a little later")
        self._helped += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._helpers, work)
        finally:
            self._helped -= 1

    def _prepare(self, blob: bytes, encoder: Encoder, future: Future[Vectors]) -> None:
        """Decode and preprocess on this thread, then queue. Never raises: all goes to `future`."""
        handed_over = False
        try:
            if not future.cancelled():
                image = decode_image(
                    blob, max_pixels=self._settings.max_pixels, target=encoder.image_size
                )
                pixels = encoder.preprocess(image)
                handed_over = True
                self._queue.put(ImageTask(pixels, future))
        except Exception as error:
            if not isinstance(error, ClipdexError):
                log.exception("decoding an image failed in an unforeseen way")
            _fail(future, error)
        finally:
            if not handed_over:
                self._queue.drop()

    @staticmethod
    def _outcome(result: Vectors | BaseException) -> Vectors | ClipdexError:
        if not isinstance(result, BaseException):
            return result
        if isinstance(result, ClipdexError):
            return result
        if not isinstance(result, Exception):
            raise result
        return UnforeseenError("this image could not be processed")


def _fail(future: Future[Vectors], error: Exception) -> None:
    try:
        future.set_exception(error)
    except InvalidStateError:
        log.debug("nobody waits any more for an image that failed: %s", error)
