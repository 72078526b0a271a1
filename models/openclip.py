"""The one door to open_clip: imports it where that works, and builds its towers from a config."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from torch import nn

from models.torchvision_ops import declare_missing_operators


def import_open_clip() -> ModuleType:
    """open_clip, importable even where torchvision's operators don't load."""
    declare_missing_operators()
    import open_clip

    return cast(ModuleType, open_clip)


def build_clip(model_cfg: Mapping[str, Any]) -> nn.Module:
    """A CLIP, CustomTextCLIP or CoCa with random weights, in evaluation mode, on the CPU.

    model_cfg: open_clip's own (`embed_dim`, `vision_cfg`, `text_cfg`, `quick_gelu`, ...). Weights
        of single towers are never fetched, whatever it says: they come with the whole model.
    """
    open_clip = import_open_clip()
    config = copy.deepcopy(dict(model_cfg))
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    is_hf_text = "hf_model_name" in config["text_cfg"]
    if is_hf_text:
        config["text_cfg"]["hf_model_pretrained"] = False
    custom_text = config.pop("custom_text", False) or is_hf_text
    kind = open_clip.CLIP
    if custom_text:
        kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    module: nn.Module = kind(**config)
    return module.eval()


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a safetensors checkpoint, in open_clip's or a known foreign layout, strictly."""
    import_open_clip().load_checkpoint(module, str(path), strict=True, device="cpu")
