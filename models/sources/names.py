"""Model ids to files: configuration, preprocessing, tokenizer and weights.

Nothing here imports torch or open_clip, unless a model is met for the first time by its tag.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import ModelBrokenError, UnknownModelError
from models.image.preprocess import PreprocessConfig
from models.sources.cache import Cache
from models.sources.hub import CONFIG_NAME, WEIGHTS_NAMES, OnProgress, fetch
from storage.durable import sha256_of

EMBEDDED = "everyday"
EMBEDDED_FOLDERS = {name: Path(__file__).parents[1] / name for name in (EMBEDDED, "pictogram")}
EMBEDDED_FOLDER = EMBEDDED_FOLDERS[EMBEDDED]
LOCAL_PREFIX = "local-dir:"
HUB_PREFIX = "hf-hub:"
_PICKLES = (".bin", ".pt", ".pth")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)


@dataclass(frozen=True)
class ModelSource:
    """Where a model's parts lie.

    model_cfg: open_clip's, as it must be built (QuickGELU decided)
    folder: the model's own folder, to which its config's relative paths lead; None for a hub model
    """

    model_id: str
    model_cfg: dict[str, Any]
    preprocess: PreprocessConfig
    weights: Path
    folder: Path | None


def resolve(
    model_id: str,
    *,
    cache: Cache | None = None,
    refresh: bool = False,
    on_progress: OnProgress | None = None,
) -> ModelSource:
    """Find a model's files by its id, fetching them where they aren't on this machine.

    refresh: ask the hub for a newer version of what is cached

    Raises: UnknownModelError, ModelUnavailableError, ModelBrokenError.
    """
    if model_id in EMBEDDED_FOLDERS:
        return _from_folder(model_id, EMBEDDED_FOLDERS[model_id])
    if model_id.startswith(LOCAL_PREFIX):
        return _from_folder(model_id, Path(model_id.removeprefix(LOCAL_PREFIX)))
    cache = cache or Cache()
    record = _record_name(model_id)
    known = None if refresh else _recall(model_id, cache.read_record(record))
    if known is not None:
        return known
    if model_id.startswith(HUB_PREFIX):
        source = _from_hub(model_id, refresh, on_progress)
    else:
        source = _from_tag(model_id, refresh, on_progress)
    cache.write_record(
        record,
        {
            "model_id": model_id,
            "model_cfg": source.model_cfg,
            "preprocess_cfg": source.preprocess.as_dict(),
            "weights": str(source.weights),
        },
    )
    return source


def identify(source: ModelSource, cache: Cache) -> str:
    """Hash over all that decides a model's vectors: config, preprocessing, tokenizer, weights."""
    parts = {
        "model": source.model_cfg,
        "preprocess": source.preprocess.as_dict(),
        "tokenizer": _tokenizer_digests(source),
        "weights": cache.digest(source.weights),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _from_folder(model_id: str, folder: Path) -> ModelSource:
    folder = folder.expanduser()
    if not folder.is_dir():
        raise UnknownModelError(
            f"{model_id}: there is no folder {folder}; a model folder holds {CONFIG_NAME} and"
            f" {WEIGHTS_NAMES[0]}",
            param="model",
        )
    config = folder / CONFIG_NAME
    if not config.is_file():
        raise ModelBrokenError(
            f"{model_id}: {folder} holds no {CONFIG_NAME}; save the model in open_clip's local"
            " format",
            param="model",
        )
    weights = next((folder / n for n in WEIGHTS_NAMES if (folder / n).is_file()), None)
    if weights is None:
        weights = min(folder.glob("*.safetensors"), default=None)
    if weights is None:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
        found = f" ({', '.join(pickles)} may run code when opened, so is not)" if pickles else ""
        raise ModelBrokenError(
            f"{model_id}: {folder} holds no weights in safetensors{found}; save the state dict as"
            f" {WEIGHTS_NAMES[0]}",
            param="model",
        )
    return _source(model_id, _read_config(model_id, config), weights, folder)


def _from_hub(model_id: str, refresh: bool, on_progress: OnProgress | None) -> ModelSource:
    repo = model_id.removeprefix(HUB_PREFIX)

    def get(names: tuple[str, ...]) -> Path:
        return fetch(repo, names, model_id=model_id, refresh=refresh, on_progress=on_progress)

    config = get((CONFIG_NAME,))
    return _source(model_id, _read_config(model_id, config), get(WEIGHTS_NAMES), None)


def _from_tag(model_id: str, refresh: bool, on_progress: OnProgress | None) -> ModelSource:
    from models.sources.tags import find_tagged  # open_clip's table: imports torch

    row = find_tagged(model_id)
    weights = fetch(
        row.repo,
        row.weights_names,
        model_id=model_id,
        refresh=refresh,
        on_progress=on_progress,
    )
    config = {"model_cfg": row.model_cfg, "preprocess_cfg": row.preprocess_cfg}
    return _source(model_id, config, weights, None)


def _record_name(model_id: str) -> str:
    return f"sources/{hashlib.sha256(model_id.encode()).hexdigest()[:24]}"


def _recall(model_id: str, record: dict[str, Any] | None) -> ModelSource | None:
    """What a model id led to before, if its files are still there."""
    if record is None or not Path(record["weights"]).is_file():
        return None
    return _source(model_id, record, Path(record["weights"]), None)


def _read_config(model_id: str, path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise ModelBrokenError(f"{model_id}: {path} is not JSON ({exc})", param="model") from exc
    return config


def _source(
    model_id: str, config: Mapping[str, Any], weights: Path, folder: Path | None
) -> ModelSource:
    try:
        model_cfg = config["model_cfg"]
        image_size = model_cfg["vision_cfg"].get("image_size", 224)
        complete = {"embed_dim", "vision_cfg", "text_cfg"} <= model_cfg.keys()
    except (KeyError, TypeError, AttributeError) as exc:
        raise ModelBrokenError(
            f"{model_id}: its {CONFIG_NAME} has no model_cfg that open_clip would know",
            param="model",
        ) from exc
    if not complete:
        raise ModelBrokenError(
            f"{model_id}: model_cfg in its {CONFIG_NAME} lacks embed_dim, vision_cfg or text_cfg",
            param="model",
        )
    preprocess = PreprocessConfig.from_open_clip(
        config.get("preprocess_cfg") or {}, image_size=image_size
    )
    return ModelSource(model_id, model_cfg, preprocess, weights, folder)


def _tokenizer_digests(source: ModelSource) -> dict[str, str]:
    """Checksums of the tokenizer's files that lie in the model's own folder."""
    if source.folder is None:
        return {}
    options = source.model_cfg["text_cfg"].get("tokenizer_kwargs") or {}
    names = {*TOKENIZER_FILES, options.get("bpe_path") or TOKENIZER_FILES[0]}
    paths = {name: source.folder / name for name in sorted(names)}
    return {name: sha256_of(path) for name, path in paths.items() if path.is_file()}
