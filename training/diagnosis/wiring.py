"""Findings from the facts around the first step: data and wiring."""

from __future__ import annotations

from collections.abc import Iterator

from training.diagnosis.verdicts import Finding, Verdict
from training.history import History

_LEAK = 0.01  # of the validation split; a stray duplicate is no leak


def wiring_findings(history: History) -> Iterator[Finding]:
    """What the facts show on their own."""
    facts = history.facts
    if not facts:
        return
    leaked, held_out = facts["leaked"], facts["val_count"]
    if leaked and leaked >= _LEAK * held_out:
        yield Finding(
            Verdict.LEAK, f"{leaked} of {held_out} validation samples also stand in training"
        )
    if facts["channels_swapped"]:
        yield Finding(
            Verdict.CHANNEL_ORDER,
            "validation has training's colours with red and blue swapped",
        )
    if facts["standardised_twice"]:
        yield Finding(
            Verdict.DOUBLE_NORMALISATION,
            "what reaches the standardisation has mean near 0 and standard deviation near 1 "
            "already",
        )
    if facts["rows_sum_to_one"]:
        yield Finding(Verdict.DOUBLE_SOFTMAX, "every row of the network's output sums to 1")
    if missed := facts["without_gradient"]:
        shown = ", ".join(missed[:3]) + (", ..." if len(missed) > 3 else "")
        yield Finding(
            Verdict.DETACHED_GRAPH,
            f"{len(missed)} of {len(facts['trainable'])} trainable tensors get no gradient: "
            f"{shown}",
        )
    if facts["head_frozen"] and facts["trainable"]:
        yield Finding(Verdict.FROZEN_HEAD, f"the last layer ({facts['head']}) is frozen")
