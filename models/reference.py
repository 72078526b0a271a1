"""A model's facts and its reference answers, as they lie in the cache: read without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.encoder import Vectors

_FACTS, _GOLDEN = "facts.json", "golden.npz"


@dataclass(frozen=True)
class Reference:
    """What an encoder tells of its model, and what open_clip in torch fp32 makes of golden inputs.

    dim: length D of its vectors
    logit_scale: factor, already exponentiated; logit_bias: None for a softmax model
    pixels: float32 [8, 3, H, W]; image_vectors: float32 [8, D], their answers
    text_vectors: float32 [8, D], the answers to `golden.GOLDEN_TEXTS`
    """

    dim: int
    logit_scale: float
    logit_bias: float | None
    pixels: Vectors
    image_vectors: Vectors
    text_vectors: Vectors


def write_reference(reference: Reference, folder: Path) -> None:
    """Put it into a folder, as npz and JSON."""
    facts = {key: getattr(reference, key) for key in ("dim", "logit_scale", "logit_bias")}
    (folder / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
    np.savez(
        folder / _GOLDEN,
        pixels=reference.pixels,
        image_vectors=reference.image_vectors,
        text_vectors=reference.text_vectors,
    )


def read_reference(folder: Path) -> Reference:
    """Read what `write_reference` wrote."""
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    with np.load(folder / _GOLDEN, allow_pickle=False) as golden:
        return Reference(**facts, **{name: golden[name] for name in golden.files})
