"""Losses: for classification, and the two contrastive ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.optimisers import decays
from training.parts import check_not_negative, check_share, part

__all__ = [
    "AbsoluteError",
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Loss",
    "SquaredError",
    "absolute_error",
    "info_nce",
    "pairwise_sigmoid",
    "soft_targets",
    "squared_error",
]


@runtime_checkable
class Loss(Protocol):
    """A classification loss over logits."""

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        """logits [B, C]; targets int64 [B] or soft [B, C] with rows that sum to 1 -> [B]."""
        ...

    def uninformed(self, classes: int) -> float:
        """The loss of a model that knows nothing (all logits 0): what a zero head starts with."""
        ...

    def plain(self) -> Self:
        """The same loss without its regularisation."""
        ...


def soft_targets(targets: Tensor, classes: int) -> Tensor:
    """int64 [B] or soft [B, C] -> float [B, C]."""
    if targets.ndim == 1:
        return F.one_hot(targets, classes).float()
    return targets


@part
@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy over classes, for class numbers and for one-hot or mixed targets.

        sparse:       L = -log p_y,            p = softmax(logits)
        categorical:  L = -sum_c y_c log p_c   the same where y is one-hot
        smoothing:    y' = (1 - s) y + s / C

    Takes logits. After a softmax of its own ("double softmax") a network can't get below
    log(C - 1 + e) - 1; `diagnose` finds that. At zero logits L = log C, with or without smoothing.

    label_smoothing: s, in [0, 1)

    Sources: Goodfellow et al. 2016, "Deep Learning", section 6.2.2.3; Szegedy et al. 2016,
    arXiv:1512.00567, section 7 (label smoothing).
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_share("label_smoothing", self.label_smoothing, upper_open=True)

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See `Loss.per_sample`."""
        return F.cross_entropy(
            logits, targets, reduction="none", label_smoothing=self.label_smoothing
        )

    def uninformed(self, classes: int) -> float:
        """Log C."""
        return math.log(classes)

    def plain(self) -> CrossEntropy:
        """Without smoothing."""
        return CrossEntropy()


@part
@dataclass(frozen=True)
class BinaryCrossEntropy:
    """The mean over classes of the two-way cross-entropy.

        L = -1/C sum_c [ y_c log s(z_c) + (1 - y_c) log(1 - s(z_c)) ],   s the sigmoid

    For labels that don't exclude each other, and for heads on sigmoid models (SigLIP). At zero
    logits L = log 2.

    Source: Goodfellow et al. 2016, "Deep Learning", section 6.2.2.2.
    """

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See `Loss.per_sample`; soft rows needn't sum to 1 here."""
        wanted = soft_targets(targets, logits.shape[1]).to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=1)

    def uninformed(self, classes: int) -> float:
        """Log 2."""
        return math.log(2)

    def plain(self) -> BinaryCrossEntropy:
        """Itself: there is nothing to leave out."""
        return self


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """[B, ...] and [B, ...] -> [B], the mean over all but the first axis."""
    return F.mse_loss(outputs, targets, reduction="none").flatten(1).mean(dim=1)


@part
@dataclass(frozen=True)
class SquaredError:
    """MSE between the softmax and the one-hot (or mixed) target.

        L = 1/C sum_c (softmax(z)_c - y_c)^2       Brier's score / C

    At zero logits L = (C - 1) / C^2. Its gradient vanishes with the softmax where the answer is
    confidently wrong: that's why cross-entropy is the default.

    Source: Brier 1950, "Verification of forecasts expressed in terms of probability".
    """

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See `Loss.per_sample`."""
        wanted = soft_targets(targets, logits.shape[1]).to(logits.dtype)
        return squared_error(logits.softmax(dim=1), wanted)

    def uninformed(self, classes: int) -> float:
        """(C - 1) / C^2."""
        return (classes - 1) / classes**2

    def plain(self) -> SquaredError:
        """Itself: there is nothing to leave out."""
        return self


def absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """[B, ...] and [B, ...] -> [B], the mean over all but the first axis."""
    return F.l1_loss(outputs, targets, reduction="none").flatten(1).mean(dim=1)


@part
@dataclass(frozen=True)
class AbsoluteError:
    """MAE between the softmax and the one-hot (or mixed) target.

        L = 1/C sum_c |softmax(z)_c - y_c|

    At zero logits L = 2 (C - 1) / C^2. Less moved by a few wrong labels than cross-entropy, and
    slower.

    Source: Ghosh et al. 2017, arXiv:1712.09482 (wrong labels).
    """

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        """See `Loss.per_sample`."""
        wanted = soft_targets(targets, logits.shape[1]).to(logits.dtype)
        return absolute_error(logits.softmax(dim=1), wanted)

    def uninformed(self, classes: int) -> float:
        """2 (C - 1) / C^2."""
        return 2 * (classes - 1) / classes**2

    def plain(self) -> AbsoluteError:
        """Itself: there is nothing to leave out."""
        return self


def info_nce(images: Tensor, texts: Tensor, logit_scale: Tensor | float) -> Tensor:
    """Symmetric InfoNCE, the contrastive loss of CLIP.

        L = 1/2 [ CE(s I T^T, diagonal) + CE(s T I^T, diagonal) ],   s: the logit scale

    Each image picks its text among the batch's, and each text its image. At chance L = log N.

    images, texts: [N, D], unit rows, row i belongs to row i -> the loss, a scalar.

    Source: Radford et al. 2021, arXiv:2103.00020, figure 3.
    """
    logits = logit_scale * images @ texts.T  # (N, N)
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def pairwise_sigmoid(
    images: Tensor, texts: Tensor, logit_scale: Tensor | float, logit_bias: Tensor | float
) -> Tensor:
    """The pairwise sigmoid loss of SigLIP: every image-text pair is a yes-or-no question.

        L = -1/N sum_ij log sigmoid( z_ij (s I_i T_j + b) ),   z_ij = 1 if i = j else -1

    No softmax over the batch, so it splits over machines and works with small batches. b starts at
    -10, because nearly all pairs are no.

    images, texts: [N, D], unit rows, row i belongs to row i -> the loss, a scalar.

    Source: Zhai et al. 2023, arXiv:2303.15343, eq. 1 and algorithm 1.
    """
    logits = logit_scale * images @ texts.T + logit_bias  # (N, N)
    sign = 2 * torch.eye(len(logits), dtype=logits.dtype, device=logits.device) - 1
    return -F.logsigmoid(sign * logits).sum() / len(logits)


@part
@dataclass(frozen=True)
class ElasticNet:
    """Penalties on the weights, added to the loss: L1, L2, and both (elastic net).

        R(W) = l1 * sum |w| + l2 / 2 * sum w^2          gradient: l1 * sign(w) + l2 * w

    With SGD, l2 is the same as `weight_decay`; that's what the 1/2 is for. With Adam it isn't: Adam
    divides the penalty's gradient by its own running size, which AdamW's decay escapes
    (`AdamW`). L1 drives weights to 0. Biases, norms and the logit scale are left out,
    as with decay.

    l1: weight of sum |w|; l2: weight of sum w^2 / 2. Either may be 0.

    Sources: Goodfellow et al. 2016, "Deep Learning", section 7.1; Zou & Hastie 2005 (elastic
    net).
    """

    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        check_not_negative("l1", self.l1)
        check_not_negative("l2", self.l2)

    def __call__(self, network: nn.Module) -> Tensor:
        """The penalty over the network's trainable weights, a scalar."""
        weights = [
            weight
            for name, weight in network.named_parameters()
            if weight.requires_grad and decays(name, weight)
        ]
        if not weights:
            return torch.zeros(())
        total = weights[0].new_zeros(())
        for weight in weights:
            if self.l1:
                total = total + self.l1 * weight.abs().sum()
            if self.l2:
                total = total + self.l2 / 2 * weight.square().sum()
        return total
