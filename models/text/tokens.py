"""Texts to token ids, by the model's own tokenizer."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from models.errors import ModelUnavailableError
from models.openclip import import_tokenizers
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
    tokenizers = import_tokenizers()
    text_cfg = model_cfg["text_cfg"]
    context_length = text_cfg.get("context_length", DEFAULT_CONTEXT_LENGTH)
    options = dict(text_cfg.get("tokenizer_kwargs") or {})
    name = text_cfg.get("hf_tokenizer_name")
    if name:
        try:
            hugging_face: Tokenize = tokenizers.HFTokenizer(
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
    simple: Tokenize = tokenizers.SimpleTokenizer(context_length=context_length, **options)
    return simple


def count_tokens(tokenizer: Tokenize, texts: Sequence[str]) -> list[int]:
    """Tokens of each text before any cut, start and end tokens included."""
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is not None:  # Hugging Face's
        clean = tokenizer.clean_fn  # type: ignore[attr-defined]
        return [len(ids) for ids in inner([clean(text) for text in texts])["input_ids"]]
    return [len(tokenizer.encode(text)) + 2 for text in texts]  # type: ignore[attr-defined]


def unknown_words(tokenizer: Tokenize, texts: Sequence[str]) -> list[tuple[str, ...]]:
    """Of each text, the words that the tokenizer's vocabulary knows nothing of, in order.

    Words are what white space separates. A word is unknown if the vocabulary reads less than half
    of its letters (digits and symbols count as letters; marks and punctuation do not). Read are:
    - ASCII letters: every vocabulary spells and merges them
    - letters inside a piece that holds at least two whole letters
    - the only letter of a word, if a piece holds it whole
    - with a Hugging Face tokenizer, every letter that a piece holds whole: its vocabulary is chosen
      by frequency, so a single letter in it (a Chinese character) is a known one
    The rest comes out as single bytes, single letters or the token for the unknown.

    A byte-level vocabulary learnt on English holds a few letters of other scripts, but no merges of
    them: CLIP's own reads the Korean word for puppy as two syllables and two bytes.
    """
    known: dict[str, bool] = {}
    found: list[tuple[str, ...]] = []
    for text in texts:
        if text.isascii():
            found.append(())
            continue
        for word in text.split():
            if word not in known:
                known[word] = word.isascii() or _is_read(tokenizer, word)
        found.append(tuple(word for word in text.split() if not known[word]))
    return found


def _is_read(tokenizer: Tokenize, word: str) -> bool:
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is not None:  # Hugging Face's
        ids = inner(word, add_special_tokens=False)["input_ids"]
        pieces = [inner.decode([one]) for one in ids if one != inner.unk_token_id]
        fewest = 1
    else:
        ids = tokenizer.encode(word)  # type: ignore[attr-defined]
        pieces = [tokenizer.decode([one]) for one in ids]  # type: ignore[attr-defined]
        fewest = 2
    total = len(_letters(unicodedata.normalize("NFC", word)))
    fewest = min(fewest, total)
    read = 0
    for piece in pieces:
        letters = _letters(piece)
        whole = len(letters) >= fewest
        read += sum(whole or letter.isascii() for letter in letters)
    return 2 * read >= total


def _letters(text: str) -> list[str]:
    """The letters, digits and symbols; a piece's undecodable bytes are none of them."""
    return [
        letter for letter in text if letter != "\ufffd" and unicodedata.category(letter)[0] in "LNS"
    ]
