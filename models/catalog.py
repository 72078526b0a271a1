"""What models there are, what is known of one, and fetching it: behind `clipdex models`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.cache import Cache
from models.hub import OnProgress
from models.sources import PICTOGRAM, ModelSource, identify, is_local, resolve
from models.text_paths import DEFAULT_CONTEXT_LENGTH


@dataclass(frozen=True)
class ModelEntry:
    """One line of the list.

    here: its weights are on this machine
    """

    model_id: str
    here: bool


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model whose files are here.

    image_size: (height, width) in pixels; dim: length of its vectors; weights_bytes: size on disk
    sigmoid: scores are independent of each other (SigLIP), not shares of one (CLIP)
    identity: hash over weights, config, preprocessing and tokenizer
    """

    model_id: str
    weights: Path
    weights_bytes: int
    image_size: tuple[int, int]
    dim: int
    context_length: int
    sigmoid: bool
    identity: str


def list_models(*, cache_dir: Path | str | None = None) -> list[ModelEntry]:
    """The embedded model and open_clip's whole table, those at hand first.

    Any repository of the hub in open_clip's format, and any folder, can be used beside these.
    """
    from models.tags import list_tagged  # open_clip's table: imports torch

    cache = Cache(cache_dir)
    names = [PICTOGRAM, *list_tagged()]
    entries = [ModelEntry(name, is_local(name, cache)) for name in names]
    return sorted(entries, key=lambda entry: not entry.here)


def show_model(model_id: str, *, cache_dir: Path | str | None = None) -> ModelCard:
    """Describe a model, fetching it if it isn't here.

    Raises: UnknownModelError, ModelUnavailableError, ModelBrokenError.
    """
    cache = Cache(cache_dir)
    return _card(resolve(model_id, cache=cache), cache)


def pull_model(
    model_id: str, *, on_progress: OnProgress | None = None, cache_dir: Path | str | None = None
) -> ModelCard:
    """Fetch a model's newest weights, config and tokenizer, so that it loads without a network.

    Raises: UnknownModelError, ModelUnavailableError, ModelBrokenError.
    """
    from models.tokenizers import build_tokenizer  # imports torch

    cache = Cache(cache_dir)
    source = resolve(model_id, cache=cache, refresh=True, on_progress=on_progress)
    build_tokenizer(source.model_cfg, source.folder)
    return _card(source, cache)


def _card(source: ModelSource, cache: Cache) -> ModelCard:
    config = source.model_cfg
    return ModelCard(
        model_id=source.model_id,
        weights=source.weights,
        weights_bytes=source.weights.stat().st_size,
        image_size=source.preprocess.size,
        dim=config["embed_dim"],
        context_length=config["text_cfg"].get("context_length", DEFAULT_CONTEXT_LENGTH),
        sigmoid=config.get("init_logit_bias") is not None,
        identity=identify(source, cache)[:32],
    )
