"""What every encoder offers, whatever runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Vectors = NDArray[np.float32]


@runtime_checkable
class Encoder(Protocol):
    """Images and texts to unit vectors of one space.

    model_id: the name it was loaded by
    backend, device, precision: what runs it ("torch" | "openvino", "cpu" | "cuda", "fp32" | ...)
    dim: length D of its vectors
    image_size: (height, width) in pixels of what the image tower sees
    context_length: tokens the text tower sees, start and end tokens included
    logit_scale: factor on the cosine before softmax or sigmoid (already exponentiated)
    logit_bias: added after the factor; a number makes this a sigmoid model, None a softmax one
    fingerprint: hash over weights, preprocessing, tokenizer and precision class; vectors of two
        fingerprints never meet in one index
    """

    model_id: str
    backend: str
    device: str
    precision: str
    dim: int
    image_size: tuple[int, int]
    context_length: int
    logit_scale: float
    logit_bias: float | None
    fingerprint: str

    def preprocess(self, image: Image.Image) -> Vectors:
        """One image as the tower's input: float32 [3, H, W]. Safe to call from many threads."""
        ...

    def encode_pixels(self, pixels: Vectors) -> Vectors:
        """float32 [N, 3, H, W] from `preprocess` -> float32 [N, D], rows of unit norm."""
        ...

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """N images -> float32 [N, D], rows of unit norm."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """N texts -> float32 [N, D], rows of unit norm. Texts beyond the context are cut."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text before any cut, start and end tokens included."""
        ...

    def unknown_words(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """Of each text, the words that the tokenizer's vocabulary knows nothing of, in order.

        Such a word reaches the text tower as bytes or single letters without a meaning: its vector
        is noise. `models.text.tokens.unknown_words` says how they are told.
        """
        ...


# ---- The image side of an encoder, whatever runs it.


class ImageTower(Protocol):
    """Pixels to unit vectors. Calls from several threads wait for each other."""

    backend: str
    device: str
    precision: str

    def __call__(self, pixels: Vectors) -> Vectors:
        """float32 [N, 3, H, W], N >= 1 -> float32 [N, D], rows of unit norm."""
        ...

    def close(self) -> None:
        """Free what runs the tower; it can't be called afterwards."""
        ...


def normalized(vectors: Vectors) -> Vectors:
    """Rows scaled to unit norm; a row of zeros stays one, as torch's `normalize` leaves it."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
    return unit
