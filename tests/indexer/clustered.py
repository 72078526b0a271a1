"""Vectors shaped like embeddings of texts: a common direction, clusters of uneven size, and
variances that fall off from dimension to dimension.
"""

from __future__ import annotations

import numpy as np

from models import Vectors


def clustered(rows: int, dim: int, *, seed: int = 0) -> Vectors:
    """float32 [rows, dim], rows of unit norm."""
    chance = np.random.default_rng(seed)
    spread = (1 + np.arange(dim)) ** -0.5
    spread /= np.linalg.norm(spread)
    common = np.zeros(dim)
    common[-1] = 1.2
    clusters = max(4, rows // 50)
    centres = chance.standard_normal((clusters, dim)) * spread
    shares = (1 + np.arange(clusters)) ** -0.5
    members = chance.choice(clusters, rows, p=shares / shares.sum())
    vectors = common + centres[members] + 0.5 * chance.standard_normal((rows, dim)) * spread
    return unit(vectors)


def moved(vectors: Vectors, step: float, *, seed: int = 1) -> Vectors:
    """The vectors after a random step of this length, brought back to unit norm."""
    away = np.random.default_rng(seed).standard_normal(vectors.shape)
    return unit(vectors + step * away / np.linalg.norm(away, axis=1, keepdims=True))


def unit(vectors: np.ndarray) -> Vectors:
    """Rows of unit norm, as float32."""
    scaled: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return scaled
