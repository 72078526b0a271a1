"""Splits into training and validation that don't leak.

Stratified: each class gives the same share. Grouped: duplicates and near-duplicates stay together,
so that validation never asks what training has shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.errors import DataError, require

Ints = NDArray[np.int64]
EDGE = 16
NEAR = 0.02
COLOUR = 0.2
_CHUNK = 1024
Floats = NDArray[np.float32]


def thumbnail(image: Image.Image) -> Floats:
    """An RGB picture as float32 [16, 16, 3] in [0, 1], by which near-duplicates are found."""
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
    """All (i, j) with left[i] near right[j] or its mirror image. [N, 16, 16, 3], [M, 16, 16, 3].

    Near-duplicates: the same picture re-encoded, resized, a little brighter, or mirrored. With the
    thumbnail t of a picture, compared without its brightness and contrast:

        z = (t - mean(t)) / max(std(t), 0.05)
        near: mean((z_i - z_j)^2) <= 0.02 (correlation 0.99), mean colours at most 0.2 apart

    A false alarm costs little: such pictures only stay on one side of a split.
    """
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


def split(
    labels: Sequence[int], groups: Sequence[int], classes: Sequence[str], *, share: float, seed: int
) -> tuple[list[int], list[int]]:
    """Rows of training and of validation.

    labels, groups: one number a row. share: of each class, for validation, in (0, 1); at least one
    group, and never all of them.

    Raises: DataError naming every class that can't be on both sides.
    """
    label_of, group_of = np.asarray(labels), np.asarray(groups)
    spread = {g for g in np.unique(group_of).tolist() if len(set(label_of[group_of == g])) > 1}
    random = np.random.default_rng(seed)
    validation: set[int] = set()
    problems: list[str] = []
    for number, name in enumerate(classes):
        rows = np.flatnonzero(label_of == number)
        own = [g for g in np.unique(group_of[rows]).tolist() if g not in spread]
        if len(rows) < 2:
            problems.append(f"{name} (one image)" if len(rows) else f"{name} (no image)")
        elif len(np.unique(group_of[rows])) < 2 or not own:
            problems.append(f"{name} ({len(rows)} images, all near-duplicates of each other)")
        else:
            whole_class = len(own) == len(np.unique(group_of[rows]))
            candidates = random.permutation(own).tolist()[
                : len(own) - 1 if whole_class else len(own)
            ]
            wanted, taken = max(1, round(share * len(rows))), 0
            for group in candidates:
                size = int((group_of[rows] == group).sum())
                if taken and taken + size > wanted:
                    continue
                if taken >= wanted:
                    break
                validation.add(group)
                taken += size
    if problems:
        raise DataError(
            "every class needs at least 2 different images, one to train on and one to check with; "
            f"add images, or give a validation folder of its own: {', '.join(problems)}"
        )
    held_out = np.isin(group_of, sorted(validation))
    return np.flatnonzero(~held_out).tolist(), np.flatnonzero(held_out).tolist()


def folds(labels: Ints, groups: Ints | None, *, count: int, seed: int) -> list[tuple[Ints, Ints]]:
    """`count` stratified folds (training rows, held-out rows) that keep groups together.

    Fewer folds where the smallest class has fewer groups.

    Raises: DataError where a class has only one group.
    """
    selection = require("sklearn.model_selection", needed_for="cross-validation")
    group_of = np.arange(len(labels)) if groups is None else groups
    smallest = min(len(np.unique(group_of[labels == c])) for c in np.unique(labels))
    if smallest < 2:
        raise DataError("cross-validation needs at least 2 different images of each class")
    splits = min(count, smallest)
    if len(np.unique(group_of)) == len(labels):
        splitter = selection.StratifiedKFold(splits, shuffle=True, random_state=seed)
        pairs = splitter.split(np.zeros(len(labels)), labels)
    else:
        splitter = selection.StratifiedGroupKFold(splits, shuffle=True, random_state=seed)
        pairs = splitter.split(np.zeros(len(labels)), labels, group_of)
    complete = [
        (train, held_out)
        for train, held_out in pairs
        if len(np.unique(labels[train])) == len(np.unique(labels)) and len(held_out)
    ]
    if not complete:
        raise DataError("no fold keeps all classes in training; add images to the small classes")
    return complete
