"""A small real encoder: it knows colours, by word and by sight, and nothing else."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from models.encoder import Vectors

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 200, 40),
    "blue": (30, 40, 220),
    "yellow": (230, 220, 30),
    "white": (250, 250, 250),
    "black": (5, 5, 5),
}
SIZE = 8


class ColourEncoder:
    """dim 16: the first three numbers are the colour, the rest tells texts apart."""

    backend, device, precision = "fake", "cpu", "fp32"
    dim = 16
    image_size = (SIZE, SIZE)
    context_length = 32
    logit_scale = 20.0
    logit_bias: float | None = None

    def __init__(self, model_id: str = "colours", *, fingerprint: str = "colours-1") -> None:
        self.model_id = model_id
        self.fingerprint = fingerprint
        self.texts_seen: list[str] = []
        self.batches: list[int] = []
        self.on_batch: Callable[[Vectors], None] | None = None
        self.on_texts: Callable[[Sequence[str]], None] | None = None
        self.threads: set[str] = set()

    def preprocess(self, image: Image.Image) -> Vectors:
        pixels = np.asarray(image.convert("RGB").resize((SIZE, SIZE)), np.float32) / 255
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def encode_pixels(self, pixels: Vectors) -> Vectors:
        self.threads.add(threading.current_thread().name)
        self.batches.append(len(pixels))
        if self.on_batch:
            self.on_batch(pixels)
        means = pixels.mean(axis=(2, 3)) - 0.5  # (N, 3)
        return _unit(np.pad(means, ((0, 0), (0, self.dim - 3))) + 1e-4)

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        return self.encode_pixels(np.stack([self.preprocess(image) for image in images]))

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        self.threads.add(threading.current_thread().name)
        self.texts_seen += texts
        if self.on_texts:
            self.on_texts(texts)
        return _unit(np.stack([self._text(text) for text in texts]))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) + 2 for text in texts]

    def unknown_words(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """Fake vocabulary: it knows every word that has an ASCII character."""
        return [
            tuple(word for word in text.split() if not any(map(str.isascii, word)))
            for text in texts
        ]

    def _text(self, text: str) -> Vectors:
        vector = np.zeros(self.dim, np.float32)
        words = text.lower().split()
        named = [COLOURS[word] for word in words if word in COLOURS]
        if named:
            vector[:3] = np.mean(named, axis=0) / 255 - 0.5
        digest = hashlib.sha256(text.encode()).digest()
        noise = np.frombuffer(digest[: 2 * (self.dim - 3)], np.int16) / 32768
        vector[3:] = noise * (0.02 if named else 1)
        return vector


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def picture(colour: str = "red", *, size: int = 12, kind: str = "PNG") -> bytes:
    """An image file of one colour."""
    out = io.BytesIO()
    Image.new("RGB", (size, size), COLOURS[colour]).save(out, kind)
    return out.getvalue()
