"""Small models of every kind, with seeded random weights, as folders."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.openclip import build_clip
from models.towers import save_clip

VISION = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3}
CLIP = {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT}
MULTIMODAL = {"context_length": 76, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}


def variant(
    base: dict[str, Any] = CLIP,
    *,
    vision: dict[str, Any] | None = None,
    text: dict[str, Any] | None = None,
    **top: Any,
) -> dict[str, Any]:
    """A copy of a model_cfg with some of its entries changed."""
    config = {**copy.deepcopy(base), **top}
    config["vision_cfg"].update(vision or {})
    config["text_cfg"].update(text or {})
    return config


# One of each kind that open_clip builds; names say what is special.
MODELS: dict[str, dict[str, Any]] = {
    "clip": CLIP,
    "quick-gelu": variant(quick_gelu=True),
    "resnet": variant(vision={"layers": [1, 1, 1, 1], "width": 16, "image_size": 64}),
    "timm": variant(
        vision={"timm_model_name": "test_vit", "timm_pool": "token", "image_size": 160}
    ),
    "siglip": variant(
        custom_text=True,
        init_logit_bias=-10,
        vision={"pool_type": "avg"},
        text={
            "context_length": 64,
            "no_causal_mask": True,
            "pool_type": "last",
            "proj_bias": True,
            "norm_kwargs": {"eps": 1e-6},
            "act_kwargs": {"approximate": "tanh"},
            "tokenizer_kwargs": {"clean": "canonicalize"},
        },
    ),
    "mobileclip-s1": variant(custom_text=True, text={"no_causal_mask": True}),
    "custom-text": variant(
        custom_text=True,
        text={
            "ls_init_value": 0.1,
            "proj_bias": True,
            "mlp_ratio": 2.0,
            "norm_kwargs": {"eps": 1e-3},
            "act_kwargs": {"approximate": "tanh"},
        },
    ),
    "eos-pooled": variant(custom_text=True, text={"pool_type": "eos", "eos_id": 49407}),
    "no-projection": variant(custom_text=True, text={"proj_type": "none", "width": 32}),
    "normed-attention": variant(custom_text=True, text={"qk_norm": True}),
    "coca": variant(
        custom_text=True,
        multimodal_cfg=MULTIMODAL,
        vision={"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        text={"context_length": 76, "embed_cls": True, "output_tokens": True},
    ),
}
PREPROCESS = {
    "siglip": {"mean": 0.5, "std": 0.5, "resize_mode": "squash"},
    "mobileclip-s1": {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear"},
}


def write_clip(folder: Path, model_cfg: dict[str, Any], preprocess_cfg: dict[str, Any]) -> Path:
    """Save a model with random weights; norms, scales and biases are not left at their start."""
    torch.manual_seed(0)
    module = build_clip(model_cfg, folder)
    generator = torch.Generator().manual_seed(1)
    if "multimodal_cfg" in model_cfg:  # open_clip leaves this one as it found the memory: even NaN
        torch.nn.init.normal_(module.text_decoder.text_projection, generator=generator)
    state = {
        name: value + 0.1 * torch.randn(value.shape, generator=generator)
        if value.is_floating_point() and value.ndim == 1 and "running" not in name
        else value
        for name, value in module.state_dict().items()
    }
    save_clip(folder, state, model_cfg=model_cfg, preprocess_cfg=preprocess_cfg, half=False)
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Models this small gain nothing from a second thread, and wait for it where it is busy."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a model of MODELS, written at its first use."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = write_clip(folder, MODELS[name], PREPROCESS.get(name, {}))
        return made[name]

    return get


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of conversions that the session's tests share."""
    return tmp_path_factory.mktemp("cache")


def pictures(count: int = 5) -> list[Image.Image]:
    """RGB noise of various sizes."""
    rng = np.random.default_rng(3)
    sizes = [(40, 60), (200, 100), (32, 32), (31, 97), (224, 224), (640, 400)]
    return [
        Image.fromarray(rng.integers(0, 256, (*sizes[i % 6], 3), dtype=np.uint8), "RGB")
        for i in range(count)
    ]


def open_clip_vectors(
    folder: Path, images: list[Image.Image], texts: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """What open_clip by itself makes of images and texts, by its public functions."""
    import open_clip  # importable once models.openclip has been

    module, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    module.eval()
    with torch.inference_mode():
        pixels = torch.stack([transform(image) for image in images])
        return (
            module.encode_image(pixels, normalize=True).numpy(),
            module.encode_text(tokenizer(texts), normalize=True).numpy(),
        )


def dump(path: Path, value: Any) -> None:
    """Write JSON."""
    path.write_text(json.dumps(value), encoding="utf-8")
