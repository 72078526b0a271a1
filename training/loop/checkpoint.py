"""Checkpoints: one safetensors file, replaced atomically. Never a pickle.

Tensors: network, best network, running average, optimiser state, random states, the epoch's order.
Everything else is JSON in the file's metadata. The file is written beside, fsynced and renamed: a
kill at any moment leaves the old one or the new one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from storage.durable import replacing
from training.errors import CheckpointError
from training.randomness import RandomState

FILE = "checkpoint.safetensors"
VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """tensors: named as "group/name"; state: JSON-able."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]

    def group(self, name: str) -> dict[str, Tensor]:
        """The tensors of one group, under their own names; empty where there is none."""
        prefix = f"{name}/"
        return {
            key.removeprefix(prefix): tensor
            for key, tensor in self.tensors.items()
            if key.startswith(prefix)
        }


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `folder`/checkpoint.safetensors, atomically."""
    tensors = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in checkpoint.tensors.items()
    }
    about = {"version": str(VERSION), "state": json.dumps(checkpoint.state)}
    with replacing(folder / FILE) as beside:
        save_file(tensors, beside, metadata=about)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """What `save_checkpoint` wrote; None where there is nothing.

    Raises: CheckpointError for a damaged file or one of another version.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state = json.loads(metadata["state"])
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as exc:
        raise CheckpointError(
            f"the checkpoint {path} is damaged: {exc}; delete it to start anew"
        ) from exc
    if metadata.get("version") != str(VERSION):
        raise CheckpointError(
            f"the checkpoint {path} is of another version; delete it to start anew"
        )
    return Checkpoint(tensors, state)


def pack_random(state: RandomState) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A random state as tensors and JSON."""
    tensors = {"random/torch": state.torch}
    tensors |= {f"random/cuda{i}": tensor for i, tensor in enumerate(state.cuda)}
    return tensors, {"numpy": state.numpy, "python": state.python}


def unpack_random(checkpoint: Checkpoint) -> RandomState:
    """What `pack_random` packed."""
    tensors, plain = checkpoint.group("random"), checkpoint.state["random"]
    cuda = tuple(tensors[name] for name in sorted(tensors) if name.startswith("cuda"))
    return RandomState(tensors["torch"], cuda, plain["numpy"], plain["python"])


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as tensors and JSON."""
    state = optimizer.state_dict()
    tensors, plain = {}, {}
    for number, entries in state["state"].items():
        for key, value in entries.items():
            name = f"{number}/{key}"
            if isinstance(value, Tensor):
                tensors[f"optimizer/{name}"] = value
            else:
                plain[name] = value
    return tensors, {"plain": plain, "groups": state["param_groups"]}


def unpack_optimizer(optimizer: torch.optim.Optimizer, checkpoint: Checkpoint) -> None:
    """Put back what `pack_optimizer` packed."""
    entries: dict[str, Any] = {
        **checkpoint.group("optimizer"),
        **checkpoint.state["optimizer"]["plain"],
    }
    state: dict[int, dict[str, Any]] = {}
    for name, value in entries.items():
        number, key = name.split("/", 1)
        state.setdefault(int(number), {})[key] = value
    groups = [
        {key: tuple(value) if key == "betas" else value for key, value in group.items()}
        for group in checkpoint.state["optimizer"]["groups"]
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
