"""Names that the model's vocabulary knows nothing of: their vectors are noise, and users are told.

An English-only model given Korean labels answers with a high probability all the same: a softmax
over meaningless vectors still has a largest entry.
"""

from __future__ import annotations

import itertools

from indexer.categories.table import CategoryTable
from models.encoder import Encoder

MOST_NAMED = 100  # in a manifest, so that it stays small
_AT_ONCE = 4096  # texts in one call of the encoder
_SHOWN = 5  # names in one warning


def unknown_names(table: CategoryTable, encoder: Encoder) -> tuple[tuple[str, ...], int]:
    """The first `MOST_NAMED` names of which the vocabulary knows no word, and how many there are.

    A name counts if all words of all texts that its vector is made of are unknown. The templates'
    own words do not count: "a photo of a" says nothing about the category.
    """
    named: list[str] = []
    count = 0
    names = table.names_beyond_ascii()
    while part := list(itertools.islice(names, _AT_ONCE)):
        texts = list(dict.fromkeys(text for _, texts in part for text in texts))
        found = dict(zip(texts, encoder.unknown_words(texts), strict=True))
        for name, described_by in part:
            if all(len(found[text]) == len(text.split()) for text in described_by):
                count += 1
                if len(named) < MOST_NAMED:
                    named.append(name)
    return tuple(named), count


def unknown_warnings(names: tuple[str, ...], count: int, model_id: str) -> tuple[str, ...]:
    """One sentence for the user that names the first names, or nothing if there are none."""
    if not count:
        return ()
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    more = f" and {count - _SHOWN:,} more" if count > _SHOWN else ""
    return (
        f"the vocabulary of {model_id} knows no word of {shown}{more}: scores and probabilities of "
        "such categories mean nothing; give prompts or labels in a language that the model knows, "
        "or use a multilingual model",
    )
