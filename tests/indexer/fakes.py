"""A small encoder whose vectors are functions of the text alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from models import Vectors


class HashEncoder:
    """Texts and images to unit vectors drawn from their hash; counts what it encodes.

    A real Encoder in all but meaning: equal inputs have equal vectors, others nearly orthogonal.
    """

    backend = "hash"
    device = "cpu"
    precision = "fp32"
    image_size = (8, 8)

    def __init__(
        self,
        dim: int = 32,
        *,
        logit_scale: float = 20.0,
        logit_bias: float | None = None,
        fingerprint: str = "a" * 64,
        context_length: int = 12,
    ) -> None:
        self.model_id = "hash"
        self.dim = dim
        self.logit_scale = logit_scale
        self.logit_bias = logit_bias
        self.fingerprint = fingerprint
        self.context_length = context_length
        self.encoded: list[str] = []

    def preprocess(self, image: Image.Image) -> Vectors:
        small = image.convert("RGB").resize((8, 8))
        return np.asarray(small, dtype=np.float32).transpose(2, 0, 1) / 255

    def encode_pixels(self, pixels: Vectors) -> Vectors:
        return np.stack([self._vector(one.tobytes()) for one in pixels])

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        return self.encode_pixels(np.stack([self.preprocess(image) for image in images]))

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        self.encoded += texts
        return np.stack([self._vector(text.encode()) for text in texts])

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) + 2 for text in texts]

    def unknown_words(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """Fake vocabulary: it knows every word that has an ASCII character."""
        return [
            tuple(word for word in text.split() if not any(map(str.isascii, word)))
            for text in texts
        ]

    def _vector(self, data: bytes) -> Vectors:
        seed = int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
        vector = np.random.default_rng(seed).standard_normal(self.dim).astype(np.float32)
        unit: Vectors = vector / np.linalg.norm(vector)
        return unit
