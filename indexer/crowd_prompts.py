"""Which crowd an index brings along; what it is for stands in `crowd`."""

from __future__ import annotations

from indexer.crowd import LEAST_CROWD, WORDS
from indexer.layout import LayoutOptions, plan_layout
from models.encoder import Encoder


def crowd_prompts(
    categories: int, rows: int, encoder: Encoder, options: LayoutOptions
) -> list[tuple[str, ...]]:
    """Prompts of everyday words, for a softmax model's index of few categories; see `crowd`."""
    if encoder.logit_bias is not None or categories >= LEAST_CROWD:
        return []
    plan = plan_layout(rows + len(WORDS), encoder.dim, options)
    return [(word,) for word in WORDS] if plan.type == "flat" else []
