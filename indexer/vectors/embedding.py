"""From categories to vectors: every name becomes prompts, and `models.prompts.ensemble` joins them.

`Progress` is how this and other long tasks of the indexer tell how far they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from indexer.categories.category import Category
from indexer.categories.other_categories import FEWEST_OTHERS, WORDS
from indexer.errors import PromptTooLongError
from indexer.vectors.layout import LayoutOptions, plan_layout
from indexer.vectors.prompt_cache import PromptCache
from models.encoder import Encoder, Vectors
from models.prompts import Templates, ensemble


@dataclass(frozen=True)
class Progress:
    """How far a task is.

    stage: "checking" | "encoding" | "indexing" | "tuning" | "reading"
    done, total: in the stage's own unit
    """

    stage: str
    done: int
    total: int


OnProgress = Callable[[Progress], None]


Prompts = tuple[str, ...]


_PROMPTS_AT_ONCE = 512


_TOKENS_AT_ONCE = 4096  # prompts counted between two reports


def row_prompts(categories: Iterable[Category], templates: Templates) -> Iterator[Prompts]:
    """The prompts of every vector, in order: one vector a name.

    A category's own prompts stand for its label; its synonyms go through the templates.
    """
    for category in categories:
        yield category.prompts or templates.prompts(category.label)
        for synonym in category.synonyms:
            yield templates.prompts(synonym)


def word_prompts(
    categories: int, rows: int, encoder: Encoder, options: LayoutOptions
) -> list[Prompts]:
    """Everyday words for an index of few categories, see `indexer.categories.other_categories`.

    None for a sigmoid model, whose probabilities are independent, and for an index of many
    categories or of an approximate layout, which has enough of its own.
    """
    if encoder.logit_bias is not None or categories >= FEWEST_OTHERS:
        return []
    plan = plan_layout(rows + len(WORDS), encoder.dim, options)
    return [(word,) for word in WORDS] if plan.type == "flat" else []


def check_lengths(
    rows: Sequence[Prompts], encoder: Encoder, *, on_progress: OnProgress | None = None
) -> None:
    """Raises: PromptTooLongError naming the first prompt beyond the model's context."""
    limit = encoder.context_length
    # A token covers at least one byte, so a short ASCII prompt can't be too long: no need to
    # tokenise it. Normalisation may lengthen other scripts, so those are always counted.
    doubtful = [
        prompt
        for prompts in rows
        for prompt in prompts
        if len(prompt) > limit - 3 or not prompt.isascii()
    ]
    for start in range(0, len(doubtful), _TOKENS_AT_ONCE):
        part = doubtful[start : start + _TOKENS_AT_ONCE]
        counts = encoder.count_tokens(part)
        long = [(p, n) for p, n in zip(part, counts, strict=True) if n > limit]
        if long:
            prompt, tokens = long[0]
            shown = prompt if len(prompt) <= 80 else prompt[:77] + "..."
            raise PromptTooLongError(
                f"the prompt {shown!r} has {tokens} tokens; {encoder.model_id} reads at most "
                f"{limit}: shorten it",
                param="categories",
            )
        if on_progress:
            on_progress(Progress("checking", min(start + len(part), len(doubtful)), len(doubtful)))


def embed(
    rows: Sequence[Prompts],
    encoder: Encoder,
    *,
    cache: PromptCache | None = None,
    on_progress: OnProgress | None = None,
) -> Vectors:
    """One unit vector for each row's prompts: float32 [len(rows), D].

    cache: where vectors of earlier runs are looked up, and new ones kept as soon as they are there
    """
    vectors = np.empty((len(rows), encoder.dim), dtype=np.float32)
    done = 0
    for part in _parts(rows):
        block = vectors[done : done + len(part)]
        if cache is None:
            block[:] = ensemble(part, encoder)
        else:
            _fill(block, part, encoder, cache)
        done += len(part)
        if on_progress:
            on_progress(Progress("encoding", done, len(rows)))
    return vectors


def _fill(block: Vectors, rows: Sequence[Prompts], encoder: Encoder, cache: PromptCache) -> None:
    known = cache.get(encoder.fingerprint, rows, encoder.dim)
    missing = [position for position, vector in enumerate(known) if vector is None]
    for position, vector in enumerate(known):
        if vector is not None:
            block[position] = vector
    if missing:
        new = [rows[position] for position in missing]
        block[missing] = ensemble(new, encoder)
        cache.put(encoder.fingerprint, new, block[missing])


def _parts(rows: Sequence[Prompts]) -> Iterator[Sequence[Prompts]]:
    """Consecutive rows of about `_PROMPTS_AT_ONCE` prompts together, at least one row each."""
    start = prompts = 0
    for position, row in enumerate(rows):
        if position > start and prompts + len(row) > _PROMPTS_AT_ONCE:
            yield rows[start:position]
            start, prompts = position, 0
        prompts += len(row)
    if start < len(rows):
        yield rows[start:]
