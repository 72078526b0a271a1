"""Answers as they are served: the classes in one ranking with their rivals, if there are any."""

from __future__ import annotations

import torch
from torch import Tensor

from training.data.dataset import Dataset
from training.heads import FeatureHead
from training.loop.run import Run


def ranked_logits(run: Run, data: Dataset, x: Tensor) -> Tensor:
    """Of a run over features [N, D]: [N, C], or [N, C + M] where there are M rivals."""
    head = run.network.network
    if data.rivals is None or not isinstance(head, FeatureHead):
        return run.logits(x)
    with torch.no_grad():
        return head.eval().ranked(x, data.rivals)
