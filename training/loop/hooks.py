"""Hooks: code that watches a run. It may read, log and stop; it may not change anything.

Changes are caught, not trusted: around each call the network's weights, gradients, buffers, modes
and the data are compared (version counters, and a sum over the bits, which also sees writes through
`.data`), and the random states are put back. A hook that changed something raises HookError, by its
name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.data.dataset import Dataset
from training.errors import HookError
from training.history import History
from training.randomness import preserved
from training.recipe import Recipe

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass
class RunView:
    """What a hook sees.

    recipe, data, network: of the run, to read. epoch: from 0; step: steps done; epochs, steps: in
    all. stage: which training this is, where one call makes several ("choosing 1 of 6"); else empty
    """

    recipe: Recipe
    data: Dataset
    network: nn.Module
    epochs: int
    steps: int
    _history: History
    epoch: int = 0
    step: int = 0
    stop_reason: str | None = None
    stage: str = ""

    @property
    def history(self) -> History:
        """A copy of the history so far."""
        return self._history.copy()

    @property
    def metrics(self) -> dict[str, float]:
        """The last finished epoch's row; empty before the first."""
        return dict(self._history.epochs[-1]) if self._history.epochs else {}

    @property
    def loss(self) -> float:
        """The last step's objective; nan before the first."""
        return self._history.loss[-1] if self._history.loss else float("nan")

    @property
    def lr(self) -> float:
        """The last step's rate; nan before the first."""
        return self._history.lr[-1] if self._history.lr else float("nan")

    def stop(self, reason: str) -> None:
        """End the run after this step; it can be resumed."""
        self.stop_reason = reason


class Callback:
    """Base of all hooks: override what you need."""

    def on_fit_start(self, run: RunView) -> None:
        """Before the first step (or the first after a resume)."""

    def on_epoch_start(self, run: RunView) -> None:
        """Before an epoch's first step."""

    def after_backward(self, run: RunView) -> None:
        """Gradients are there (unscaled, not yet clipped); the step hasn't been taken."""

    def on_step_end(self, run: RunView) -> None:
        """After a step."""

    def on_epoch_end(self, run: RunView) -> None:
        """After an epoch's evaluation; `run.metrics` is its row."""

    def on_checkpoint(self, run: RunView) -> None:
        """After a checkpoint has been written."""

    def on_fit_end(self, run: RunView) -> None:
        """After the last step, whatever the reason."""


class Hooks:
    """All callbacks of a run, called in order and watched."""

    def __init__(self, callbacks: Sequence[Callback], view: RunView) -> None:
        self._callbacks = callbacks
        self.view = view

    def call(self, name: str) -> None:
        """Call one hook on every callback.

        Raises: HookError if one of them changed what it may only read.
        """
        for callback in self._callbacks:
            hook: Callable[[RunView], None] = getattr(callback, name)
            if getattr(type(callback), name, None) is getattr(Callback, name):
                continue  # not overridden: nothing to watch
            before = _imprint(self.view)
            with preserved():
                hook(self.view)
            if _imprint(self.view) != before:
                raise HookError(
                    f"the hook {type(callback).__name__}.{name} changed the run; hooks may read, "
                    "log "
                    "and stop, so take the change out (or make it a part of the recipe)"
                )


def _imprint(view: RunView) -> list[Any]:
    network, data = view.network, view.data
    marks: list[Any] = [module.training for module in network.modules()]
    for parameter in network.parameters():
        marks += [parameter.requires_grad, *_mark(parameter)]
        marks += _mark(parameter.grad) if parameter.grad is not None else [None]
    for buffer in network.buffers():
        marks += _mark(buffer)
    for tensor in (data.train.inputs, data.train.labels, data.val.inputs, data.val.labels):
        marks.append(tensor._version)
    return marks


def _mark(tensor: Tensor) -> list[int]:
    bits = tensor.detach().contiguous().view(_BITS[tensor.element_size()])
    return [tensor._version, int(bits.sum(dtype=torch.int64))]
