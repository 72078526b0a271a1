"""A Dataset as one safetensors file: to hand it to another process."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from training.data.dataset import Dataset, Samples, ZeroShot


def save_dataset(path: Path, data: Dataset) -> None:
    """Write a Dataset (without the samples' names)."""
    tensors = {}
    for name, side in (("train", data.train), ("val", data.val)):
        tensors[f"{name}/inputs"] = side.inputs.contiguous()
        tensors[f"{name}/labels"] = side.labels.contiguous()
        if side.groups is not None:
            tensors[f"{name}/groups"] = side.groups.contiguous()
    about: dict[str, object] = {"classes": data.classes}
    if data.zero_shot is not None:
        tensors["text"] = data.zero_shot.text.contiguous()
        about["zero_shot"] = {
            "logit_scale": data.zero_shot.logit_scale,
            "logit_bias": data.zero_shot.logit_bias,
            "fingerprint": data.zero_shot.fingerprint,
            "prompts": data.zero_shot.prompts,
        }
    save_file(tensors, path, metadata={"about": json.dumps(about)})


def load_dataset(path: Path) -> Dataset:
    """What `save_dataset` wrote."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = json.loads(file.metadata()["about"])

    def side(name: str) -> Samples:
        groups: torch.Tensor | None = tensors.get(f"{name}/groups")
        return Samples(tensors[f"{name}/inputs"], tensors[f"{name}/labels"], groups)

    zero_shot = None
    if "zero_shot" in about:
        prompts = tuple(tuple(texts) for texts in about["zero_shot"].pop("prompts"))
        zero_shot = ZeroShot(text=tensors["text"], prompts=prompts, **about["zero_shot"])
    return Dataset(side("train"), side("val"), tuple(about["classes"]), zero_shot)
