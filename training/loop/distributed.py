"""Several processes, one training: what torchrun starts.

Every process holds the whole network and the whole data, draws the same batch with the same
augmentations, and computes its own share of it. The gradients of

    sum over processes of (own samples / batch) * mean loss of the own samples

are summed, so that every process takes the step that one process would have taken with the whole
batch, up to the order of sums. Dropout masks are each process's own. Networks whose layers look at
the whole batch (BatchNorm in training) are refused: a share has other statistics.

The first process alone calls hooks and writes; it tells the others when a hook stops the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

from training.errors import RecipeError
from training.randomness import preserved

Value = TypeVar("Value")


@dataclass(frozen=True)
class Group:
    """The processes of this training. rank: this one's number; size: how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def share(self, count: int) -> tuple[slice, float]:
        """This process's rows of a batch of `count`, and their weight: their part of the batch.

        Where there are more processes than rows, some get the first row with weight 0.
        """
        start, end = (count * r // self.size for r in (self.rank, self.rank + 1))
        if start == end:
            return slice(0, 1), 0.0
        return slice(start, end), (end - start) / count

    def total(self, value: float) -> float:
        """The sum over all processes."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=_device())
        dist.all_reduce(tensor)
        return float(tensor)

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        start = 0
        for gradient in gradients:
            gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()

    def same(self, value: Value) -> Value:
        """The first process's value, everywhere."""
        if self.size == 1:
            return value
        holder = [value]
        dist.broadcast_object_list(holder, src=0)
        return holder[0]

    @contextmanager
    def own_chance(self, seed: int, step: int) -> Iterator[None]:
        """Random numbers inside are this process's own; those after it are shared again."""
        if self.size == 1:
            yield
            return
        with preserved():
            torch.manual_seed((seed * 1_000_003 + step) * self.size + self.rank)
            yield

    def check(self, network: nn.Module) -> None:
        """Raises: RecipeError for a layer that needs the whole batch in one process."""
        if self.size > 1 and any(
            isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
            for module in network.modules()
        ):
            raise RecipeError(
                "a network with BatchNorm in training can't be split over processes; run it in"
                " one, or use another norm",
                param="method",
            )


def current_group() -> Group:
    """The group this process has joined, or a group of one."""
    if dist.is_available() and dist.is_initialized():
        return Group(dist.get_rank(), dist.get_world_size())
    return Group()


@contextmanager
def joined() -> Iterator[Group]:
    """Join the other processes where torchrun has started this one, and leave them at the end."""
    if not dist.is_available() or dist.is_initialized() or not dist.is_torchelastic_launched():
        yield current_group()
        return
    with_gpus = torch.cuda.is_available()
    if with_gpus:
        torch.cuda.set_device(dist.get_node_local_rank())
    dist.init_process_group("nccl" if with_gpus else "gloo")
    try:
        yield current_group()
    finally:
        dist.destroy_process_group()


def own_device() -> str:
    """The GPU of this process where torch can use one, else the CPU."""
    return f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"


def _device() -> str:
    return own_device() if dist.get_backend() == "nccl" else "cpu"
