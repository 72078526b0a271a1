"""CLIP as torch modules, for training code: build, load and save.

A saved folder is open_clip's own local format (`open_clip_config.json`,
`open_clip_model.safetensors`, the tokenizer's merges), so that open_clip itself and
`load_encoder("local-dir:...")` read it alike.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from models.cache import Cache
from models.hub import CONFIG_NAME, WEIGHTS_NAMES
from models.openclip import build_clip, import_open_clip, load_weights
from models.preprocess import PreprocessConfig
from models.sources import resolve
from models.tokenizers import Tokenize, build_tokenizer

__all__ = [
    "LoadedClip",
    "build_clip",
    "build_tokenizer",
    "default_merges",
    "load_clip",
    "save_clip",
]


@dataclass(frozen=True)
class LoadedClip:
    """A CLIP with its weights, and what belongs to it.

    module: fp32, on the CPU, in evaluation mode
    tokenize: texts -> int64 [N, context_length]
    folder: where relative paths of the config lead, if the model came from a folder
    """

    module: nn.Module
    tokenize: Tokenize
    preprocess: PreprocessConfig
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    folder: Path | None


def load_clip(model_id: str, *, cache_dir: Path | str | None = None) -> LoadedClip:
    """Load a model's torch module by its id.

    Raises: UnknownModelError, ModelUnavailableError, ModelBrokenError.
    """
    source = resolve(model_id, cache=Cache(cache_dir))
    module = build_clip(source.model_cfg, source.folder)
    load_weights(module, source.weights)
    return LoadedClip(
        module=module,
        tokenize=build_tokenizer(source.model_cfg, source.folder),
        preprocess=source.preprocess,
        model_cfg=source.model_cfg,
        preprocess_cfg=source.preprocess.as_dict(),
        folder=source.folder,
    )


def save_clip(
    folder: Path,
    state: Mapping[str, torch.Tensor],
    *,
    model_cfg: Mapping[str, Any],
    preprocess_cfg: Mapping[str, Any],
    half: bool,
) -> None:
    """Write weights and config; what the config's tokenizer needs is put there by the caller.

    half: store floating-point tensors in fp16
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in state.items()
    }
    save_file(tensors, folder / WEIGHTS_NAMES[0])
    config = {"model_cfg": dict(model_cfg), "preprocess_cfg": dict(preprocess_cfg)}
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def default_merges() -> list[str]:
    """The lines of CLIP's byte-pair vocabulary that its tokenizer reads, header first."""
    with gzip.open(import_open_clip().tokenizer.default_bpe()) as file:
        lines = file.read().decode("utf-8").split("\n")
    return lines[: 49152 - 256 - 2 + 1]
