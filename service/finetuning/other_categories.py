"""The categories of an index among which taught classes have to be found.

A head that has only learnt to tell its classes from each other loses to an index's other
categories: among 300 of them it found 2 % of CIFAR-10's photographs, and 40 % once it had been
trained against their text vectors, of which it needs no images.

Imports torch: for those who train.
"""

from __future__ import annotations

import secrets
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from indexer import CategoryIndex
from training import Dataset

MOST = 4096  # of an index with more, those nearest to the training images
_EACH = 100  # of one image


def others_of(index: CategoryIndex, data: Dataset) -> Tensor | None:
    """Text vectors float32 [M, D] of the index's categories that are none of the classes.

    None if there are no others.
    """
    near = _nearest(index, data) if len(index) > MOST else range(len(index))
    own = set(index.positions(data.classes, synonyms=True).tolist())
    others = [position for position in near if position not in own][:MOST]
    if not others:
        return None
    vectors = torch.from_numpy(index.vectors(others))
    return torch.nn.functional.normalize(vectors, dim=1)  # compressed ones are a little off


def save_others(path: Path, others: Tensor | None) -> None:
    """Keep what `others_of` found: a job that goes on needs the same, whatever the index holds by
    then.
    """
    vectors = np.empty((0, 0), np.float32) if others is None else others.numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with beside.open("wb") as file:
        np.save(file, vectors, allow_pickle=False)
    beside.replace(path)


def load_others(path: Path) -> Tensor | None:
    """What `save_others` wrote."""
    vectors = np.load(path, allow_pickle=False)
    return torch.from_numpy(vectors) if len(vectors) else None


def _nearest(index: CategoryIndex, data: Dataset) -> list[int]:
    """The positions that training images have among their best matches, the best first."""
    best = index.search(data.train.first_views().numpy(), _EACH)
    # the first matches of all images, then the second ones, and so on
    labels = (match.label for rank in zip(*best, strict=True) for match in rank)
    positions: list[int] = index.positions(list(dict.fromkeys(labels))).tolist()
    return positions
