"""Model ids to files: configuration, preprocessing, tokenizer and weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import ModelBrokenError, ModelUnavailableError, UnknownModelError
from models.preprocess import PreprocessConfig

PICTOGRAM = "pictogram"
PICTOGRAM_FOLDER = Path(__file__).parent / "pictogram"
LOCAL_PREFIX = "local-dir:"
HUB_PREFIX = "hf-hub:"
CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
)


@dataclass(frozen=True)
class ModelSource:
    """Where a model's parts lie.

    folder: the model's own folder, to which its config's relative paths lead; None for a hub model
    """

    model_id: str
    model_cfg: dict[str, Any]
    preprocess: PreprocessConfig
    weights: Path
    folder: Path | None


def resolve(model_id: str, *, cache_dir: Path | None = None) -> ModelSource:
    """Find a model's files by its id.

    Raises: UnknownModelError, ModelUnavailableError, ModelBrokenError.
    """
    if model_id == PICTOGRAM:
        return _from_folder(model_id, PICTOGRAM_FOLDER)
    if model_id.startswith(LOCAL_PREFIX):
        return _from_folder(model_id, Path(model_id.removeprefix(LOCAL_PREFIX)))
    if model_id.startswith(HUB_PREFIX):
        return _from_hub(model_id, model_id.removeprefix(HUB_PREFIX))
    return _from_tag(model_id)


def _from_folder(model_id: str, folder: Path) -> ModelSource:
    if not folder.is_dir():
        raise UnknownModelError(f"{model_id}: there is no folder {folder}", param="model")
    config = folder / CONFIG_NAME
    if not config.is_file():
        raise ModelBrokenError(f"{model_id}: {folder} holds no {CONFIG_NAME}", param="model")
    for name in WEIGHTS_NAMES:
        if (folder / name).is_file():
            return _source(model_id, config, folder / name, folder)
    raise ModelBrokenError(
        f"{model_id}: {folder} holds no weights in safetensors ({WEIGHTS_NAMES[0]})", param="model"
    )


def _from_hub(model_id: str, repo: str) -> ModelSource:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        config = Path(huggingface_hub.hf_hub_download(repo, CONFIG_NAME))
        weights = Path(huggingface_hub.hf_hub_download(repo, WEIGHTS_NAMES[0]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as exc:
        raise ModelUnavailableError(
            f"{model_id}: neither cached nor to be downloaded ({exc}); `clipdex models pull"
            f" {model_id}` on a machine with internet fetches it",
            param="model",
        ) from exc
    return _source(model_id, config, weights, None)


def _source(model_id: str, config: Path, weights: Path, folder: Path | None) -> ModelSource:
    try:
        parsed = json.loads(config.read_text(encoding="utf-8"))
        model_cfg = parsed["model_cfg"]
        image_size = model_cfg["vision_cfg"].get("image_size", 224)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ModelBrokenError(f"{model_id}: {config} is no open_clip config: {exc!r}") from exc
    preprocess = PreprocessConfig.from_open_clip(
        parsed.get("preprocess_cfg") or {}, image_size=image_size
    )
    return ModelSource(model_id, model_cfg, preprocess, weights, folder)


def _from_tag(model_id: str) -> ModelSource:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    from models.openclip import import_open_clip

    open_clip = import_open_clip()
    architecture, _, tag = model_id.rpartition("/")
    architecture = architecture.replace("/", "-")
    found = open_clip.get_pretrained_cfg(architecture, tag)
    model_cfg = open_clip.get_model_config(architecture)
    if not found or model_cfg is None:
        raise UnknownModelError(f"there is no model {model_id}", param="model")
    if found.get("quick_gelu"):
        model_cfg["quick_gelu"] = True
    repo, _, name = found["hf_hub"].rpartition("/")
    try:
        weights = Path(huggingface_hub.hf_hub_download(repo, name or WEIGHTS_NAMES[0]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as exc:
        raise ModelUnavailableError(
            f"{model_id}: neither cached nor to be downloaded ({exc}); `clipdex models pull"
            f" {model_id}` on a machine with internet fetches it",
            param="model",
        ) from exc
    preprocess = PreprocessConfig.from_open_clip(
        found, image_size=model_cfg["vision_cfg"].get("image_size", 224)
    )
    return ModelSource(model_id, model_cfg, preprocess, weights, None)
