"""The server's encoder for work beside its requests: an `Encoder` that takes turns with them."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar, cast

import numpy as np
from PIL import Image

from models import Encoder
from models.encoder import Vectors
from service.inference.queue import BatchQueue, Turn

T = TypeVar("T")
# While images come, a turn should hold them up by about this many seconds: long lists of texts are
# encoded in parts. While none come, parts are as long as possible, which costs least.
_TURN_SECONDS = 0.1
_FEWEST, _MOST = 16, 512


class TextCache:
    """The vectors of the texts used last; safe to use from any thread.

    size: texts kept
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._vectors: OrderedDict[str, Vectors] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, text: str) -> Vectors | None:
        """The vector [D] of a text, if it is kept."""
        with self._lock:
            vector = self._vectors.get(text)
            if vector is not None:
                self._vectors.move_to_end(text)
            return vector

    def put(self, text: str, vector: Vectors) -> None:
        """Keep a text's vector, and forget the one unused for longest if there are too many."""
        with self._lock:
            # A row of a larger array would keep the whole array alive.
            self._vectors[text] = vector.copy()
            self._vectors.move_to_end(text)
            while len(self._vectors) > self._size:
                self._vectors.popitem(last=False)


class SharedEncoder:
    """An `Encoder` whose every call is a turn, or several, between the server's image batches.

    Its calls block; don't make them on the event loop.

    cache: where text vectors are kept and looked up; None: nowhere
    """

    def __init__(self, encoder: Encoder, queue: BatchQueue, cache: TextCache | None = None) -> None:
        self.model_id = encoder.model_id
        self.backend = encoder.backend
        self.device = encoder.device
        self.precision = encoder.precision
        self.dim = encoder.dim
        self.image_size = encoder.image_size
        self.context_length = encoder.context_length
        self.logit_scale = encoder.logit_scale
        self.logit_bias = encoder.logit_bias
        self.fingerprint = encoder.fingerprint
        self._encoder = encoder
        self._queue = queue
        self._cache = cache
        self._part = 2 * _FEWEST

    def preprocess(self, image: Image.Image) -> Vectors:
        """One image as the tower's input: float32 [3, H, W]."""
        return self._encoder.preprocess(image)

    def encode_pixels(self, pixels: Vectors) -> Vectors:
        """float32 [N, 3, H, W] -> float32 [N, D]."""
        parts = [pixels[start : start + _FEWEST] for start in range(0, len(pixels), _FEWEST)]
        return self._joined(
            [self._turn(lambda encoder, part=part: encoder.encode_pixels(part)) for part in parts]  # type: ignore[misc]
        )

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """N images -> float32 [N, D]."""
        if not images:
            return self._joined([])
        return self.encode_pixels(np.stack([self.preprocess(image) for image in images]))

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """N texts -> float32 [N, D]."""
        if self._cache is None:
            return self._encode_in_parts(texts)
        kept = {text: self._cache.get(text) for text in texts}
        missing = [text for text, vector in kept.items() if vector is None]
        for text, vector in zip(missing, self._encode_in_parts(missing), strict=True):
            kept[text] = vector
            self._cache.put(text, vector)
        return self._joined([cast(Vectors, kept[text])[None] for text in texts])

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text before any cut."""
        return self._turn(lambda encoder: encoder.count_tokens(texts))

    def unknown_words(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """Of each text, the words that the vocabulary knows nothing of."""
        return self._turn(lambda encoder: encoder.unknown_words(texts))

    def _encode_in_parts(self, texts: Sequence[str]) -> Vectors:
        rows: list[Vectors] = []
        start = 0
        while start < len(texts):
            size = _MOST if self._queue.quiet else self._part
            part = texts[start : start + size]
            started = time.perf_counter()
            rows.append(self._turn(lambda encoder, part=part: encoder.encode_texts(part)))  # type: ignore[misc]
            if len(part) == size == self._part:
                self._learn(time.perf_counter() - started)
            start += len(part)
        return self._joined(rows)

    def _learn(self, seconds: float) -> None:
        """Fit the next part's size to the time that this one took, waiting included."""
        fitting = int(self._part * _TURN_SECONDS / max(seconds, 1e-6))
        self._part = max(_FEWEST, min(_MOST, 2 * self._part, fitting))

    def _joined(self, rows: list[Vectors]) -> Vectors:
        if len(rows) == 1:
            return rows[0]
        return np.concatenate([np.empty((0, self.dim), np.float32), *rows])

    def _turn(self, work: Callable[[Encoder], T]) -> T:
        future: Future[object] = Future()
        self._queue.put_turn(Turn(work, future))
        return cast(T, future.result())
