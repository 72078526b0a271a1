"""Is it one of the taught classes at all? A head's level against an index's other categories.

Together a head's classes weigh exp(L(x)) in one ranking with the other categories:

    L(x) = a lse(zero-shot logits) + b lse(the head's logits) + c,    (1, 0, 0) is zero-shot's level

lse of the head's own logits is large where x lies among the taught images. a, b and c are fitted
by logistic regression, L(x) - lse(other categories' logits) against "taught or not". Taught images
answer out of fold. Of the other categories there are only words, so their images are imagined:

    x = unit(m + k (t_o - t) + r),    m, t: means of the taught images and of their text vectors

k is how far the taught class means follow their text vectors (least squares), r is normal with the
covariance of what is left of the taught images. (The rest of a single image would not do: the head
has learnt from it, and would know the imagined image again.) Where words say little (k near 0)
imagined images look like the taught ones.

Sources: Liu et al. 2020, "Energy-based Out-of-distribution Detection", arXiv:2010.03759, section 3;
Zhang et al. 2024, "Connect, Collapse, Corrupt", arXiv:2401.08567, section 4 (the gap between words
and images closed by the mean, and noise added).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from training.data.dataset import Dataset, ZeroShot
from training.errors import require

Level = tuple[float, float, float]
Side = tuple[
    NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]
]  # lse of zero-shot, of the head, of the other categories; share of each row
ZERO_SHOT_LEVEL: Level = (1.0, 0.0, 0.0)
MOST_IMAGINED = 1000
_TAUGHT = 0.8  # how much of the total weight the taught images have
_PRIOR = 0.05  # of the squared distance from zero-shot's level, beside a mean loss


def imagined_images(data: Dataset, zero_shot: ZeroShot, others: Tensor, *, seed: int) -> Tensor:
    """Unit vectors [M, D] where the images of other categories [M, D] may lie."""
    dice = torch.Generator().manual_seed(seed)
    chosen = others[torch.randperm(len(others), generator=dice)[:MOST_IMAGINED]]
    x, labels = data.train.first_views(), data.train.labels
    text = zero_shot.text - zero_shot.text.mean(dim=0)
    middle = x.mean(dim=0)
    away = x - middle
    follows = (away * text[labels]).sum() / text[labels].square().sum()
    follows = follows.clamp(min=0)
    rest = away - follows * text[labels]
    mixed = torch.randn(len(chosen), len(rest), generator=dice) / len(rest) ** 0.5
    drawn = mixed @ rest  # normal, with the covariance of the rest
    return F.normalize(middle + follows * (chosen - zero_shot.text.mean(dim=0)) + drawn, dim=1)


def fitted_level(taught: Side, others: Side) -> Level:
    """(a, b, c) by penalised logistic regression; see the top of this module."""
    optimize = require("scipy.optimize", needed_for="fine-tuning heads")
    columns, offsets, signs, weights = [], [], [], []
    for (words, own, rest, share), side, total in (
        (taught, 1.0, _TAUGHT),
        (others, -1.0, 1 - _TAUGHT),
    ):
        columns.append(np.stack([words, own, np.ones_like(own)], axis=1))
        offsets.append(rest)
        signs.append(np.full(len(own), side))
        weights.append(total * share / share.sum())
    x, offset = np.concatenate(columns), np.concatenate(offsets)
    sign, weight = np.concatenate(signs), np.concatenate(weights)
    middle, spread = x[:, :2].mean(axis=0), np.maximum(x[:, :2].std(axis=0), 1e-6)
    start = np.array(ZERO_SHOT_LEVEL)
    ruler = np.array([*spread, 1.0])  # a step of one in each is a step of about one in L

    def loss(v: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        a, b, c = start + v / ruler
        margin = sign * (a * x[:, 0] + b * (x[:, 1] - middle[1]) + c - offset)
        value = (weight * np.logaddexp(0, -margin)).sum() + _PRIOR * (v[:2] ** 2).sum() / 2
        pull = -weight * sign / (1 + np.exp(np.clip(margin, -500, 500)))
        slope = np.array([pull @ x[:, 0], pull @ (x[:, 1] - middle[1]), pull.sum()]) / ruler
        return float(value), slope + _PRIOR * np.array([v[0], v[1], 0.0])

    bounds = [(-ruler[0], None), (0.0, None), (None, None)]  # a and b are not negative
    found = optimize.minimize(loss, np.zeros(3), jac=True, method="L-BFGS-B", bounds=bounds)
    a, b, c = start + found.x / ruler
    return float(a), float(b), float(c - b * middle[1])
