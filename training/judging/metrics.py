"""Answers as the service gives them: the classes ranked together with any other categories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.data.dataset import Dataset
from training.errors import DataError, require, with_torchvision
from training.heads import FeatureHead
from training.loop.run import Run


def ranked_logits(run: Run, data: Dataset, x: Tensor) -> Tensor:
    """Of a run over features [N, D]: [N, C], or [N, C + M] with M other categories."""
    head = run.network.network
    if data.others is None or not isinstance(head, FeatureHead):
        return run.logits(x)
    with torch.no_grad():
        return head.eval().ranked(x, data.others)


BINS = 15


@dataclass(frozen=True)
class Scores:
    """Of one classifier on one set of samples: shares in [0, 1].

        top-k:               share of samples whose class is among the k largest logits
        calibration error:   sum over 15 bins of n_b / N * |accuracy_b - mean confidence_b|,
                             n_b samples in bin b

    per_class: accuracy by class name (classes without samples left out); n: samples

    Sources: Guo et al. 2017, arXiv:1706.04599, section 2 (expected calibration error);
    torchmetrics.
    """

    top1: float
    top5: float
    calibration_error: float
    per_class: dict[str, float]
    n: int


def score(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> Scores:
    """How good these logits are. labels: int64 [N].

    logits: [N, C], or [N, C + M] with other categories, at the model's own scale

    Raises: DataError for no samples; MissingExtraError without torchmetrics.
    """
    if not len(labels):
        raise DataError("there is no held-out sample to measure on")
    with_torchvision("torchvision")  # torchmetrics looks for it
    functional = require("torchmetrics.functional.classification", needed_for="measuring adapters")
    count = logits.shape[1]
    probabilities = logits.softmax(dim=1)
    error = functional.multiclass_calibration_error(probabilities, labels, count, n_bins=BINS)
    right = logits.argmax(dim=1) == labels
    per_class = {
        name: float(right[labels == number].double().mean())
        for number, name in enumerate(classes)
        if bool((labels == number).any())
    }
    best = logits.topk(min(5, count), dim=1).indices
    return Scores(
        top1=float(right.double().mean()),
        top5=float((best == labels[:, None]).any(dim=1).double().mean()),
        calibration_error=float(error),
        per_class=per_class,
        n=len(labels),
    )
