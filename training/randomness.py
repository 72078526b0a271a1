"""The random states that a run depends on, as data: captured, restored, compared.

Three generators are in play: torch's (dropout, initialisation, torchvision's transforms), numpy's
global one (timm's Mixup draws from it) and Python's. On CUDA each device has one more.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class RandomState:
    """torch: uint8 [5056]; cuda: one uint8 tensor a device; numpy and python: JSON-able."""

    torch: Tensor
    cuda: tuple[Tensor, ...]
    numpy: list[Any]
    python: list[Any]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RandomState):
            return NotImplemented
        return (
            torch.equal(self.torch, other.torch)
            and len(self.cuda) == len(other.cuda)
            and all(torch.equal(a, b) for a, b in zip(self.cuda, other.cuda, strict=True))
            and self.numpy == other.numpy
            and self.python == other.python
        )

    __hash__ = None  # type: ignore[assignment]  # tensors compare by value, not by hash


def capture() -> RandomState:
    """Every generator's state, as copies."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, internal, gauss = random.getstate()
    return RandomState(
        torch=torch.get_rng_state(),
        cuda=tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else (),
        numpy=[str(name), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
        python=[version, list(internal), gauss],
    )


def restore(state: RandomState) -> None:
    """Set every generator to what `capture` saw."""
    torch.set_rng_state(state.torch)
    if state.cuda and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(list(state.cuda))
    name, keys, position, has_gauss, cached = state.numpy
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), position, has_gauss, cached))
    version, internal, gauss = state.python
    random.setstate((version, tuple(internal), gauss))


def seed_all(seed: int) -> None:
    """Seed torch (all devices), numpy's global generator and Python's."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def preserved() -> Iterator[None]:
    """Leave the caller's random states as they were, also after an exception."""
    before = capture()
    try:
        yield
    finally:
        restore(before)


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
