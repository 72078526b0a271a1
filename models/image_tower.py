"""The image side of an encoder, whatever runs it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from models.encoder import Vectors


class ImageTower(Protocol):
    """Pixels to unit vectors. Calls from several threads wait for each other."""

    backend: str
    device: str
    precision: str

    def __call__(self, pixels: Vectors) -> Vectors:
        """float32 [N, 3, H, W], N >= 1 -> float32 [N, D], rows of unit norm."""
        ...


def normalized(vectors: Vectors) -> Vectors:
    """Rows scaled to unit norm; a row of zeros stays one, as torch's `normalize` leaves it."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
    return unit
