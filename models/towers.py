"""CLIP as torch modules, for training code: build, load and save.

A saved folder is open_clip's own local format (`open_clip_config.json`,
`open_clip_model.safetensors`, the tokenizer's merges), so that open_clip itself and
`load_encoder("local-dir:...")` read it alike.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from models.errors import ModelBrokenError
from models.image.parity import GOLDEN_TEXTS, Reference, golden_pixels
from models.image.preprocess import PreprocessConfig, Preprocessor
from models.openclip import build_clip, import_tokenizers, load_weights
from models.sources.cache import Cache
from models.sources.hub import CONFIG_NAME, WEIGHTS_NAMES
from models.sources.names import TOKENIZER_FILES, ModelSource, resolve
from models.text.tokens import Tokenize, build_tokenizer
from models.text.tower import build_text

__all__ = [
    "LoadedClip",
    "build_clip",
    "build_tokenizer",
    "default_merges",
    "fold_projection",
    "load_clip",
    "save_clip",
    "save_local_dir",
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


def save_local_dir(
    folder: Path,
    clip: LoadedClip,
    state: Mapping[str, torch.Tensor],
    *,
    final: Path | None = None,
) -> None:
    """Write a changed model as a folder that open_clip alone loads: `local-dir:FOLDER`.

    clip: what the model was before: its config and tokenizer are taken over
    state: the whole model's weights, stored in fp32
    final: where the folder is going to stay; then open_clip's own `get_tokenizer` finds a
        vocabulary of the model's own too (it takes a relative path for one of the working folder)
    """
    config = json.loads(json.dumps(clip.model_cfg))
    text_cfg = config["text_cfg"]
    options = text_cfg.get("tokenizer_kwargs") or {}
    folder.mkdir(parents=True, exist_ok=True)
    if clip.folder is not None:
        for name in TOKENIZER_FILES:
            if (clip.folder / name).is_file():
                shutil.copyfile(clip.folder / name, folder / name)
        if "bpe_path" in options:
            merges = clip.folder / options["bpe_path"]
            shutil.copyfile(merges, folder / merges.name)
            options["bpe_path"] = str(final / merges.name) if final else merges.name
        hf_name = text_cfg.get("hf_model_name")
        if hf_name and (clip.folder / hf_name).is_dir():
            shutil.copytree(clip.folder / hf_name, folder / hf_name, dirs_exist_ok=True)
    preprocess = {**clip.preprocess_cfg, "size": list(clip.preprocess.size)}
    save_clip(folder, state, model_cfg=config, preprocess_cfg=preprocess, half=False)


def fold_projection(visual: nn.Module, matrix: torch.Tensor) -> None:
    """Multiply an image tower's last linear map with a matrix [D, D], in place: its vectors v
    become v @ matrix (before they are scaled to unit length).

    Raises: ModelBrokenError for a tower whose last map isn't known to be linear.
    """
    projection = getattr(visual, "proj", None)
    with torch.no_grad():
        if isinstance(projection, nn.Parameter):  # open_clip's VisionTransformer: x @ proj
            projection.copy_(projection @ matrix)
            return
        linear = _last_linear(visual)
        if linear is None or linear.out_features != len(matrix):
            raise ModelBrokenError(
                f"{type(visual).__name__} has no linear projection at its end to fold into"
            )
        linear.weight.copy_(matrix.T @ linear.weight)
        if linear.bias is not None:
            linear.bias.copy_(linear.bias @ matrix)


def _last_linear(visual: nn.Module) -> nn.Linear | None:
    for path in ("attnpool.c_proj", "head.proj", "head.mlp.fc2", "head.pool.proj"):
        module: Any = visual
        for name in path.split("."):
            module = getattr(module, name, None)
        if isinstance(module, nn.Linear):
            return module
    return None


def default_merges() -> list[str]:
    """The lines of CLIP's byte-pair vocabulary that its tokenizer reads, header first."""
    with gzip.open(import_tokenizers().default_bpe()) as file:
        lines = file.read().decode("utf-8").split("\n")
    return lines[: 49152 - 256 - 2 + 1]


# ---- Where a model's torch module is taken apart: reference answers, converted graphs, text
# towers.
#
# Imports torch and open_clip. `models.load` comes here only when the cache lacks something, or when
# torch itself is to serve.


# The smallest image tower there is: stands in where only texts are to be encoded.
_NO_VISION = {"image_size": 8, "patch_size": 8, "width": 8, "head_width": 8, "layers": 1}


def load_module(source: ModelSource) -> nn.Module:
    """The whole model in fp32 on the CPU, without gradients.

    Raises: ModelBrokenError, ModelUnavailableError.
    """
    module = build_clip(source.model_cfg, source.folder)
    load_weights(module, source.weights)
    return module.requires_grad_(False)


def _in_fp32(tensor: torch.Tensor) -> torch.Tensor:
    """Weights as float32; indices, such as a Hugging Face tower's position_ids, as they are."""
    return tensor.float() if tensor.is_floating_point() else tensor


def load_text_module(source: ModelSource) -> nn.Module:
    """The model without its image tower, which for large models is most of the memory.

    Raises: ModelBrokenError, ModelUnavailableError.
    """
    try:
        with safe_open(source.weights, framework="pt") as file:
            names = [name for name in file.keys() if not name.startswith("visual.")]  # noqa: SIM118
            state = {name: _in_fp32(file.get_tensor(name)) for name in names}
    except SafetensorError as exc:
        raise ModelBrokenError(
            f"{source.model_id}: {source.weights} is damaged ({exc})", param="model"
        ) from exc
    module = build_text(source.model_cfg, state)
    if module is None:
        module = build_clip({**source.model_cfg, "vision_cfg": _NO_VISION}, source.folder)
        del module.visual
    wanted = module.state_dict()
    if {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in wanted.items()
    }:
        module.load_state_dict(state, assign=True)
        return module.requires_grad_(False)
    # Another layout, or positions to interpolate: open_clip knows how, given the whole.
    module = load_module(source)
    del module.visual
    return module


def compute_reference(
    module: nn.Module, source: ModelSource, preprocessor: Preprocessor
) -> Reference:
    """The model's facts and its answers to the golden inputs, by open_clip's own methods.

    Raises: ModelBrokenError where the model makes no finite vectors; ModelUnavailableError where
        its tokenizer can't be had.
    """
    tokenizer = build_tokenizer(source.model_cfg, source.folder)
    pixels = golden_pixels(preprocessor)
    with torch.inference_mode():
        images = module.encode_image(torch.from_numpy(pixels), normalize=True)  # type: ignore[operator]
        texts = module.encode_text(tokenizer(list(GOLDEN_TEXTS)), normalize=True)  # type: ignore[operator]
    for what, vectors in (("images", images), ("texts", texts)):
        if vectors.shape != (len(vectors), images.shape[1]) or not vectors.isfinite().all():
            raise ModelBrokenError(
                f"{source.model_id}: its {what} become {tuple(vectors.shape)}, or numbers that are"
                " not finite: no vectors to compare",
                param="model",
            )
    state = module.state_dict()
    bias = state.get("logit_bias")
    return Reference(
        dim=int(images.shape[1]),
        logit_scale=float(state["logit_scale"].exp()),
        logit_bias=None if bias is None else float(bias),
        pixels=pixels,
        image_vectors=images.numpy(),
        text_vectors=texts.numpy(),
    )
