"""Loss and accuracy in eval mode, without any regulariser."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.data.dataset import Samples
from training.losses import Loss
from training.modes import before_training, evaluating

_BATCH = 512


@torch.no_grad()
def first_logits(network: nn.Module, inputs: Tensor, *, device: str = "cpu") -> Tensor:
    """Logits [N, C] of an untrained network, in one batch: fresh BatchNorm has no averages yet."""
    with before_training(network):
        logits: Tensor = network(inputs.to(device)).float().cpu()
    return logits


@torch.no_grad()
def logits_of(network: nn.Module, inputs: Tensor, *, device: str = "cpu") -> Tensor:
    """Logits [N, C] on the CPU, computed in batches in eval mode."""
    with evaluating(network):
        parts = [network(chunk.to(device)).float().cpu() for chunk in inputs.split(_BATCH)]
    return torch.cat(parts)


def loss_and_accuracy(
    network: nn.Module, samples: Samples, loss: Loss, *, device: str = "cpu"
) -> tuple[float, float]:
    """Mean plain loss, and the share of right answers, over the samples' first views."""
    return scores(logits_of(network, samples.first_views(), device=device), samples.labels, loss)


def scores(logits: Tensor, labels: Tensor, loss: Loss) -> tuple[float, float]:
    """Mean plain loss and accuracy of logits [N, C] for labels [N]."""
    mean = float(loss.plain().per_sample(logits, labels).double().mean())
    return mean, float((logits.argmax(dim=1) == labels).double().mean())


def spread_rows(count: int, most: int) -> list[int]:
    """At most `most` of `count` rows, evenly spread: always the same, without chance."""
    if count <= most:
        return list(range(count))
    return [i * count // most for i in range(most)]
