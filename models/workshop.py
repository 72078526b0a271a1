"""Where a model's torch module is taken apart: reference answers, converted graphs, text towers.

Imports torch and open_clip. `models.load` comes here only when the cache lacks something, or when
torch itself is to serve.
"""

from __future__ import annotations

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from models.errors import ModelBrokenError
from models.golden import GOLDEN_TEXTS, golden_pixels
from models.openclip import build_clip, load_weights
from models.preprocess import Preprocessor
from models.reference import Reference
from models.sources import ModelSource
from models.tokenizers import build_tokenizer

# The smallest image tower there is: stands in where only texts are to be encoded.
_NO_VISION = {"image_size": 8, "patch_size": 8, "width": 8, "head_width": 8, "layers": 1}


def load_module(source: ModelSource) -> nn.Module:
    """The whole model in fp32 on the CPU, without gradients.

    Raises: ModelBrokenError, ModelUnavailableError.
    """
    module = build_clip(source.model_cfg, source.folder)
    load_weights(module, source.weights)
    return module.requires_grad_(False)


def load_text_module(source: ModelSource) -> nn.Module:
    """The model without its image tower, which for large models is most of the memory.

    Raises: ModelBrokenError, ModelUnavailableError.
    """
    config = {**source.model_cfg, "vision_cfg": _NO_VISION}
    module = build_clip(config, source.folder)
    del module.visual
    try:
        with safe_open(source.weights, framework="pt") as file:
            names = [name for name in file.keys() if not name.startswith("visual.")]  # noqa: SIM118
            state = {name: file.get_tensor(name) for name in names}
    except SafetensorError as exc:
        raise ModelBrokenError(
            f"{source.model_id}: {source.weights} is damaged ({exc})", param="model"
        ) from exc
    wanted = module.state_dict()
    if {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in wanted.items()
    }:
        module.load_state_dict(state)
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
