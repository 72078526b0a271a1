"""Splits into training and validation that don't leak.

Stratified: each class gives the same share. Grouped: duplicates and near-duplicates stay together,
so that validation never asks what training has shown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError
from training.extras import require

Ints = NDArray[np.int64]


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
