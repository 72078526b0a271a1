"""The one door to open_clip: imports it where that works, and builds its models from a config."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from safetensors import SafetensorError
from torch import nn

from models.errors import ModelBrokenError, ModelUnavailableError
from models.torchvision_ops import declare_missing_operators


def import_open_clip() -> ModuleType:
    """open_clip, importable even where torchvision's operators don't load."""
    declare_missing_operators()
    import open_clip

    return cast(ModuleType, open_clip)


def build_clip(model_cfg: Mapping[str, Any], folder: Path | None = None) -> nn.Module:
    """A CLIP, CustomTextCLIP or CoCa with random weights, in evaluation mode, on the CPU.

    model_cfg: open_clip's own (`embed_dim`, `vision_cfg`, `text_cfg`, `quick_gelu`, ...). Weights
        of single towers are never fetched, whatever it says: they come with the whole model.
    folder: the model's own; a Hugging Face text tower's `hf_model_name` may be a folder in it

    Raises: ModelBrokenError where the config describes no model that open_clip can build;
        ModelUnavailableError where a Hugging Face text tower's own config can't be had.
    """
    open_clip = import_open_clip()
    config = copy.deepcopy(dict(model_cfg))
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    is_hf_text = "hf_model_name" in text
    if is_hf_text:
        if find_spec("transformers") is None:
            raise ModelUnavailableError(
                f"the text tower {text['hf_model_name']} needs the package transformers; pip"
                " install transformers",
                param="model",
            )
        text["hf_model_pretrained"] = False
        if folder is not None and (folder / text["hf_model_name"]).is_dir():
            text["hf_model_name"] = str(folder / text["hf_model_name"])
    custom_text = config.pop("custom_text", False) or is_hf_text
    kind = open_clip.CLIP
    if custom_text:
        kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    try:
        module: nn.Module = kind(**config)
    except OSError as exc:
        raise ModelUnavailableError(
            f"the config of the text tower {text.get('hf_model_name')} is neither cached nor to be"
            f" fetched ({str(exc).splitlines()[0]})",
            param="model",
        ) from exc
    except (TypeError, ValueError, KeyError, AssertionError, RuntimeError) as exc:
        raise ModelBrokenError(
            f"open_clip cannot build this model_cfg: {exc}", param="model"
        ) from exc
    return module.eval()


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a safetensors checkpoint, in open_clip's or a known foreign layout, strictly.

    Raises: ModelBrokenError where the file is damaged, no safetensors, or of another architecture.
    """
    # What open_clip would open as a pickle or a TorchScript archive never gets there.
    if path.suffix != ".safetensors":
        raise ModelBrokenError(
            f"{path.name}: weights are read from safetensors only", param="model"
        )
    try:
        import_open_clip().load_checkpoint(module, str(path), strict=True, device="cpu")
    except SafetensorError as exc:
        raise ModelBrokenError(
            f"{path} is damaged or no safetensors file ({exc}); fetch or save it again",
            param="model",
        ) from exc
    except (RuntimeError, KeyError, AttributeError) as exc:
        reason = str(exc).splitlines()[0]
        raise ModelBrokenError(
            f"the weights in {path} are not those of the model its config describes ({reason})",
            param="model",
        ) from exc
