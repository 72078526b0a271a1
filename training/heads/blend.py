"""Words and images in one linear head, in closed form or by a convex problem.

    z = (words * s * cos(x, t_c) + sum_k weight_k * own_k,c(x))

`own` are classifiers that see the images alone (and, anchored, the words as their starting point):

    class-means   8 cos(x - m, mu_c - m), linear in x: the difference from the mean image m is
                  scaled by its mean length over the training images
    gda           Gaussian discriminant with a shared covariance, shrunk towards a multiple of I
    regression    softmax regression with an L2 penalty
    anchored      the same, added to the words' logits before training: what it adds is shrunk to 0

Each is a matrix and a bias, and so is their sum: whatever is blended is served as one linear head.
`training.judging.leaderboard` decides members, strengths and weights by cross-validation.

Sources: Snell et al. 2017, arXiv:1703.05175, section 2 (class means); Wang et al. 2024,
arXiv:2402.04087 (GDA beside CLIP's words); Radford et al. 2021, arXiv:2103.00020, appendix A.3
(regression on features); Silva-Rodriguez et al. 2024, arXiv:2312.12730, section 4 (anchor);
Breiman 1996, "Stacked regressions", Machine Learning 24 (weights that aren't negative).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.data.dataset import Dataset, Samples
from training.errors import require
from training.heads.linear import LinearHead
from training.networks import need_zero_shot
from training.parts import check_choice, check_not_negative, part

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

KINDS = ("class-means", "gda", "regression", "anchored")
MOST_ROWS = 2000  # beyond it the varied views are left out: they cost time and teach little
_MEANS_SCALE = 8.0
_GDA_SPREAD = 2.0  # standard deviation of the discriminant's logits over the training images
_STEPS = 100
_FLAT = 1e-6


@part
@dataclass(frozen=True)
class Member:
    """One classifier of a blend.

    kind: one of KINDS; strength: "gda" its shrinkage in (0, 1], "regression" and "anchored" their
    penalty, "class-means" none (0); weight: of its logits in the sum
    """

    kind: str
    strength: float = 0.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        check_not_negative("strength", self.strength)
        check_not_negative("weight", self.weight)


@part
@dataclass(frozen=True)
class Blend:
    """words: the weight of the words' logits; members: the classifiers to add.

    level: see `FeatureHead.level`. Without members it is zero-shot at another temperature.
    """

    words: float = 1.0
    members: tuple[Member, ...] = ()
    level: tuple[float, float, float] | None = None

    trained = False
    starts_at_zero_shot = False

    def __post_init__(self) -> None:
        check_not_negative("words", self.words)

    def build(self, data: Dataset) -> nn.Module:
        """See `Method.build`: solved when it returns."""
        zero_shot = need_zero_shot(data, "Blend")
        text = zero_shot.text.numpy().astype(np.float64)
        support = Support(data.train, text, zero_shot.logit_scale)
        weight, bias = self.words * zero_shot.logit_scale * text, np.zeros(len(text))
        for member in self.members:
            own, shift = support.solve(member.kind, member.strength)
            weight, bias = weight + member.weight * own, bias + member.weight * shift
        head = LinearHead(zero_shot, from_text=False).set_level(self.level)
        with torch.no_grad():
            head.delta.copy_(torch.from_numpy(weight / zero_shot.logit_scale))
            head.bias.copy_(torch.from_numpy(bias) - (head.logit_bias or 0.0))
        return head.requires_grad_(False)

    def plain(self) -> Blend:
        """Itself: the penalties are the method."""
        return self


class Support:
    """The training images, reduced to the subspace that they span: what all classifiers share.

    samples: inputs [N, V, D]; text: [C, D]; scale: the model's logit scale. Every image weighs the
    same, however many views it has.
    """

    def __init__(self, samples: Samples, text: Floats, scale: float) -> None:
        views = samples.inputs if samples.inputs.ndim == 3 else samples.inputs[:, None]
        if views.shape[0] * views.shape[1] > MOST_ROWS:
            views = views[:, :1]
        self.count, each = len(text), views.shape[1]
        self.x: Floats = views.flatten(0, 1).numpy().astype(np.float64)  # (N V, D)
        self.labels: Ints = samples.labels.repeat_interleave(each).numpy()
        self.share = 1 / each
        self.words: Floats = scale * text
        self.middle: Floats = self.x.mean(axis=0)
        centred = self.x - self.middle
        _, spread, basis = np.linalg.svd(centred, full_matrices=False)
        self.basis: Floats = basis[spread > _FLAT * max(spread[0], _FLAT)]  # (R, D)
        self.reduced: Floats = centred @ self.basis.T  # (N V, R)
        self.means: Floats = np.stack(
            [self.reduced[self.labels == c].mean(axis=0) for c in range(self.count)]
        )
        self._started: dict[str, Floats] = {}

    def solve(self, kind: str, strength: float) -> tuple[Floats, Floats]:
        """A classifier as weights [C, D] and biases [C]."""
        if kind == "class-means":
            weight, bias = self._class_means()
        elif kind == "gda":
            weight, bias = self._discriminant(strength)
        else:
            weight, bias = self._regression(kind, strength)
        full = weight @ self.basis
        bias = bias - full @ self.middle
        return (full + self._start(), bias) if kind == "anchored" else (full, bias)

    def _class_means(self) -> tuple[Floats, Floats]:
        lengths = np.linalg.norm(self.means, axis=1, keepdims=True)
        typical = np.linalg.norm(self.reduced, axis=1).mean()
        weight = _MEANS_SCALE * self.means / np.maximum(lengths * typical, _FLAT)
        return weight, np.zeros(self.count)

    def _discriminant(self, shrinkage: float) -> tuple[Floats, Floats]:
        residuals = self.reduced - self.means[self.labels]
        width = self.reduced.shape[1]
        scatter = residuals.T @ residuals / len(residuals)
        spread = np.trace(scatter) / width or 1.0
        precision = np.linalg.inv((1 - shrinkage) * scatter + shrinkage * spread * np.eye(width))
        weight = self.means @ precision
        bias = -0.5 * (weight * self.means).sum(axis=1)
        logits = self.reduced @ weight.T + bias
        ruler = _GDA_SPREAD / max((logits - logits.mean(axis=1, keepdims=True)).std(), _FLAT)
        return ruler * weight, ruler * bias

    def _start(self) -> Floats:
        """The words' weights that an anchored regression starts from, [C, D]: as strong as the
        training images, which the words have never seen, say that they should be.
        """
        if "words" not in self._started:
            logits = (self.x @ self.words.T)[None]
            (trust,) = stack(logits, self.labels, np.full(len(self.x), self.share))
            self._started["words"] = trust * self.words
        return self._started["words"]

    def _regression(self, kind: str, penalty: float) -> tuple[Floats, Floats]:
        offset = self.x @ self._start().T if kind == "anchored" else None
        weight, bias, vector = softmax_regression(
            self.reduced,
            self.labels,
            self.count,
            penalty=penalty,
            offset=offset,
            share=self.share,
            start=self._started.get(kind),
        )
        self._started[kind] = vector  # the next strength starts where this one ended
        return weight, bias


def softmax_regression(
    x: Floats,
    labels: Ints,
    count: int,
    *,
    penalty: float,
    offset: Floats | None = None,
    share: float = 1.0,
    start: Floats | None = None,
) -> tuple[Floats, Floats, Floats]:
    """min over W, b of share * sum_i cross-entropy(x_i W^T + b + offset_i) + penalty |W|^2 / 2.

    x: [N, R]; labels: [N]; offset: [N, C]; start: a third result to start from. Without offset it
    is scikit-learn's LogisticRegression with C = 1 / penalty, which has no offsets.

    Returns W [C, R], b [C] and both as one vector. Source: Friedman et al. 2010, "Regularization
    Paths for Generalized Linear Models via Coordinate Descent", section 2.5 (warm starts).
    """
    optimize = require("scipy.optimize", needed_for="fine-tuning heads")
    width, rows = x.shape[1], np.arange(len(x))

    def loss(vector: Floats) -> tuple[float, Floats]:
        weight, bias = vector[: count * width].reshape(count, width), vector[count * width :]
        logits = x @ weight.T + bias
        if offset is not None:
            logits += offset
        logits -= logits.max(axis=1, keepdims=True)
        value = -logits[rows, labels].sum()
        np.exp(logits, out=logits)
        total = logits.sum(axis=1, keepdims=True)
        value += np.log(total).sum()
        logits /= total
        logits[rows, labels] -= 1
        slope = share * logits.T @ x + penalty * weight
        value = share * value + penalty * (weight * weight).sum() / 2
        return float(value), np.concatenate([slope.ravel(), share * logits.sum(axis=0)])

    first = np.zeros(count * (width + 1)) if start is None else start
    found = optimize.minimize(
        loss,
        first,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _STEPS, "gtol": 1e-4 * max(1.0, share * len(x) / 50)},
    )
    vector: Floats = found.x
    return vector[: count * width].reshape(count, width), vector[count * width :], vector


PRIOR_WEIGHT = 0.5  # of each part, where the images say nothing
_PRIOR_SPREAD = 3.0  # standard deviation of its logarithm
_LEAST, _MOST = np.exp(-6), np.exp(3)


def stack(logits: Floats, labels: Ints, share: Floats) -> Floats:
    """Weights [K] > 0 of K classifiers' held-out logits [K, M, C] with the best likelihood.

    share: what each row counts, [M]. Their scale is the answer's temperature at once. The logarithm
    of a weight has a normal prior about log(1/2): a handful of images can't send it to 0 or to
    infinity.

    Source: Breiman 1996, "Stacked regressions"; Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    optimize = require("scipy.optimize", needed_for="fine-tuning heads")
    own = np.take_along_axis(logits, labels[None, :, None], axis=2)
    relative = logits - own  # (K, M, C)
    middle = np.log(PRIOR_WEIGHT)

    def loss(log_weights: Floats) -> tuple[float, Floats]:
        weights = np.exp(log_weights)
        mixed = np.tensordot(weights, relative, axes=1)
        peak = mixed.max(axis=1, keepdims=True)
        odds = np.exp(mixed - peak)
        total = odds.sum(axis=1, keepdims=True)
        value = (share * (np.log(total) + peak)[:, 0]).sum()
        chance = odds / total
        slope = np.einsum("m,mc,kmc->k", share, chance, relative, optimize=True) * weights
        away = (log_weights - middle) / _PRIOR_SPREAD**2
        return float(value + (away * (log_weights - middle)).sum() / 2), slope + away

    found = optimize.minimize(
        loss,
        np.full(len(logits), middle),
        jac=True,
        method="L-BFGS-B",
        bounds=[(np.log(_LEAST), np.log(_MOST))] * len(logits),
    )
    weights: Floats = np.exp(found.x)
    return weights


def strengths(kind: str) -> Sequence[float]:
    """What is tried of each kind, the strongest first."""
    return {
        "class-means": (0.0,),
        "gda": (0.9, 0.4, 0.1),
        "regression": (1.0, 0.1, 0.01),
        "anchored": (1.0, 0.1, 0.01),
    }[kind]
