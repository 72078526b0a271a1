"""The vocabulary of the text tower: byte-pair merges over all its words, Hangul included.

The file has the format that open_clip's SimpleTokenizer reads: a header, then one merge a line, in
the alphabet that stands for bytes, gzipped.

Source: Sennrich, Haddow, Birch, Neural Machine Translation of Rare Words with Subword Units, 2016.
"""

from __future__ import annotations

import gzip
import json
import unicodedata
from collections.abc import Iterable
from pathlib import Path

MERGES = 24000
# CLIP's own pattern: letters together, digits one by one, the rest together.
_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def learn_merges(texts: Iterable[str], *, merges: int = MERGES) -> list[str]:
    """The `merges` most frequent merges, "left right" each, in the order they were learnt.

    texts: as often as they are to count
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) * 2 + merges,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator((_clean(text) for text in texts), trainer)
    learnt = json.loads(tokenizer.to_str())["model"]["merges"]
    return [" ".join(pair) for pair in learnt[:merges]]


def write_merges(path: Path, merges: list[str]) -> None:
    """Write SimpleTokenizer's format; the same merges give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as file:
        file.write("\n".join(["#version: 0.2", *merges]).encode())


def _clean(text: str) -> str:
    """What SimpleTokenizer does before it splits, as far as it concerns our texts."""
    return unicodedata.normalize("NFC", text).replace("\u2019", "'").lower()
