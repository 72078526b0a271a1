"""open_clip's own table of architectures and pretrained weights: `ARCHITECTURE/TAG`."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from models.errors import UnknownModelError
from models.openclip import import_open_clip
from models.sources.hub import WEIGHTS_NAMES


@dataclass(frozen=True)
class TaggedModel:
    """One row of the table.

    repo: the hub's repository that holds the weights
    weights_names: the files that may hold them there, the preferred one first
    """

    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    repo: str
    weights_names: tuple[str, ...]


def list_tagged() -> list[str]:
    """All model ids of the table."""
    return [f"{name}/{tag}" for name, tag in import_open_clip().list_pretrained()]


def find_tagged(model_id: str) -> TaggedModel:
    """Look a model id up.

    Weights that were trained with QuickGELU get it even under the plain architecture's name
    (`ViT-B-32/openai`), where open_clip only warns and computes other vectors.

    Raises: UnknownModelError, with the closest names.
    """
    open_clip = import_open_clip()
    name, _, tag = model_id.rpartition("/")
    architecture = name.replace("/", "-")
    entry = open_clip.get_pretrained_cfg(architecture, tag)
    model_cfg = open_clip.get_model_config(architecture)
    if not entry or model_cfg is None:
        raise UnknownModelError(_advice(model_id), param="model")
    if entry.get("quick_gelu"):
        model_cfg["quick_gelu"] = True
    repo, _, file = entry["hf_hub"].rpartition("/")
    names: tuple[str, ...] = WEIGHTS_NAMES
    if file:
        names = (file.rpartition(".")[0] + ".safetensors",)
    return TaggedModel(model_cfg, entry, repo, names)


def _advice(model_id: str) -> str:
    """What to say of a name that isn't in the table."""
    known = list_tagged()
    cleaned = model_id.strip("/").lower()
    tags = [item for item in known if item.lower().startswith(f"{cleaned}/")]
    if tags:
        return f"{model_id} is an architecture; say which weights: {', '.join(tags[:6])}"
    by_lower = {item.lower(): item for item in ["everyday", "pictogram", *known]}
    close = difflib.get_close_matches(cleaned, by_lower, n=3, cutoff=0.4)
    hint = f"; the closest are {', '.join(by_lower[item] for item in close)}" if close else ""
    return f"there is no model {model_id}{hint} (`clipdex models list` shows all)"
