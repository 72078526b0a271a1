"""Texts to token ids, by the model's own tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from models.errors import ModelUnavailableError
from models.openclip import import_open_clip
from models.text.paths import DEFAULT_CONTEXT_LENGTH


class Tokenize(Protocol):
    """open_clip's tokenizers: texts -> int64 [N, context_length], cut and padded."""

    def __call__(self, texts: list[str], /) -> torch.Tensor:
        """Token ids of each text."""
        ...


def build_tokenizer(model_cfg: Mapping[str, Any], folder: Path | None) -> Tokenize:
    """The tokenizer that `model_cfg` asks for.

    folder: the model's own, if it has one: its tokenizer files are looked for there, and a
        relative `bpe_path` leads there.

    Raises: ModelUnavailableError where a Hugging Face tokenizer can't be had.
    """
    open_clip = import_open_clip()
    text_cfg = model_cfg["text_cfg"]
    context_length = text_cfg.get("context_length", DEFAULT_CONTEXT_LENGTH)
    options = dict(text_cfg.get("tokenizer_kwargs") or {})
    name = text_cfg.get("hf_tokenizer_name")
    if name:
        try:
            hugging_face: Tokenize = open_clip.tokenizer.HFTokenizer(
                str(folder) if folder else name,
                context_length=context_length,
                tokenizer_mode=text_cfg.get("tokenizer_mode"),
                **options,
            )
        except ImportError as exc:
            raise ModelUnavailableError(
                f"the tokenizer {name} needs the package transformers; pip install transformers",
                param="model",
            ) from exc
        except (OSError, ValueError) as exc:
            raise ModelUnavailableError(
                f"the tokenizer {name} is neither {f'in {folder}' if folder else 'cached'} nor to"
                f" be fetched ({str(exc).splitlines()[0]})",
                param="model",
            ) from exc
        return hugging_face
    if folder is not None and "bpe_path" in options:
        options["bpe_path"] = str(folder / options["bpe_path"])
    simple: Tokenize = open_clip.SimpleTokenizer(context_length=context_length, **options)
    return simple


def count_tokens(tokenizer: Tokenize, texts: Sequence[str]) -> list[int]:
    """Tokens of each text before any cut, start and end tokens included."""
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is not None:  # Hugging Face's
        clean = tokenizer.clean_fn  # type: ignore[attr-defined]
        return [len(ids) for ids in inner([clean(text) for text in texts])["input_ids"]]
    return [len(tokenizer.encode(text)) + 2 for text in texts]  # type: ignore[attr-defined]
