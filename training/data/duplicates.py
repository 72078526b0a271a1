"""Near-duplicates: the same picture re-encoded, resized, a little brighter, or mirrored.

Each picture becomes a 16 x 16 colour thumbnail t, compared without its brightness and contrast:

    z = (t - mean(t)) / max(std(t), 0.05),   near if mean((z_i - z_j)^2) <= 0.02 (correlation 0.99)
                                             and their mean colours differ by at most 0.2

A false alarm costs little: such pictures only stay on one side of a split.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

EDGE = 16
NEAR = 0.02
COLOUR = 0.2
_CHUNK = 1024

Floats = NDArray[np.float32]


def thumbnail(image: Image.Image) -> Floats:
    """An RGB picture as float32 [16, 16, 3] in [0, 1]."""
    small = image.resize((EDGE, EDGE), Image.Resampling.BILINEAR)
    return np.asarray(small, dtype=np.float32) / np.float32(255)


def near_groups(thumbnails: Floats) -> NDArray[np.int64]:
    """float32 [N, 16, 16, 3] -> int64 [N]: near-duplicates, and theirs, share a number."""
    parent = list(range(len(thumbnails)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in near_pairs(thumbnails, thumbnails):
        if i < j:
            parent[root(j)] = root(i)
    return np.array([root(i) for i in range(len(thumbnails))], dtype=np.int64)


def near_pairs(left: Floats, right: Floats) -> Iterator[tuple[int, int]]:
    """All (i, j) with left[i] near right[j] or its mirror image. [N, 16, 16, 3], [M, 16, 16, 3]."""
    if not len(left) or not len(right):
        return
    a, b, mirrored = _normal(left), _normal(right), _normal(right[:, :, ::-1])
    colour_a, colour_b = left.mean(axis=(1, 2)), right.mean(axis=(1, 2))
    squares_a, squares_b = (a**2).sum(axis=1), (b**2).sum(axis=1)
    for start in range(0, len(a), _CHUNK):
        rows = slice(start, start + _CHUNK)
        product = np.maximum(a[rows] @ b.T, a[rows] @ mirrored.T)
        distance = (squares_a[rows, None] + squares_b - 2 * product) / a.shape[1]
        for i, j in zip(*np.nonzero(distance <= NEAR), strict=True):
            if np.abs(colour_a[start + i] - colour_b[j]).max() <= COLOUR:
                yield start + int(i), int(j)


def _normal(thumbnails: Floats) -> Floats:
    flat = thumbnails.reshape(len(thumbnails), -1)
    centred = flat - flat.mean(axis=1, keepdims=True)
    normal: Floats = centred / np.maximum(flat.std(axis=1, keepdims=True), np.float32(0.05))
    return normal
