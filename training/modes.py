"""Train and eval mode, put back exactly as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put the whole network into eval mode; afterwards each module has its own old mode again.

    `network.train()` wouldn't do: it also wakes layers that were frozen in eval mode.
    """
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def before_training(network: nn.Module) -> Iterator[None]:
    """Eval mode, but BatchNorm layers that have never seen a batch use the batch's statistics.

    Their running averages are still 0 and 1, which says nothing about the network. Averages and
    modes are put back.
    """
    fresh = [
        module
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and module.num_batches_tracked is not None
        and int(module.num_batches_tracked) == 0
    ]
    buffers = [(b, b.clone()) for module in fresh for b in module.buffers()]
    with evaluating(network):
        for module in fresh:
            module.train()
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
