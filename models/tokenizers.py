"""Texts to token ids, by the model's own tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from models.openclip import import_open_clip

DEFAULT_CONTEXT_LENGTH = 77


class Tokenize(Protocol):
    """open_clip's tokenizers: texts -> int64 [N, context_length], cut and padded."""

    def __call__(self, texts: list[str], /) -> torch.Tensor:
        """Token ids of each text."""
        ...


def build_tokenizer(model_cfg: Mapping[str, Any], folder: Path | None) -> Tokenize:
    """The tokenizer that `model_cfg` asks for.

    folder: the model's own, if it has one: its tokenizer files are looked for there.
    """
    open_clip = import_open_clip()
    text_cfg = model_cfg["text_cfg"]
    context_length = text_cfg.get("context_length", DEFAULT_CONTEXT_LENGTH)
    options = dict(text_cfg.get("tokenizer_kwargs") or {})
    if text_cfg.get("hf_tokenizer_name"):
        hugging_face: Tokenize = open_clip.tokenizer.HFTokenizer(
            str(folder) if folder else text_cfg["hf_tokenizer_name"],
            context_length=context_length,
            tokenizer_mode=text_cfg.get("tokenizer_mode"),
            **options,
        )
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
