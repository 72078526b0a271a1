"""Which method for how much data: a decision with its reasons, before any training.

    Images a class | default
    0              | zero-shot
    1..3           | text head, anchored with 1/shots, no search
                   | (`choice.py` takes GDA from 2: see docs/decisions)
    4..15          | GDA or the text head, by cross-validation on the support set
    16 and more    | with an accelerator LoRA, from 2000 images full fine-tuning; else as before

Published means over 11 data sets (ViT-B/16; 1/2/4/8/16 shots; several of these chose epochs or
strengths on the test set, which is never done here): zero-shot 65.4; linear probe
45.8/56.9/66.8/73.4/78.4; Tip-Adapter 68.9/70.4/72.7/74.4/76.4; GDA 69.4/73.1/76.2/79.7/81.7; LP++
70.4/72.9/75.8/77.9/80.3; CLIP-LoRA 72.2/75.4/77.3/80.1/82.9.

Sources: Wang et al. 2024, arXiv:2402.04087 (GDA); Huang et al. 2024, arXiv:2404.02285 (LP++);
Zanella & Ben Ayed 2024, arXiv:2405.18541 (CLIP-LoRA); the lecture's transfer-learning slide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FULL_FROM = 2000


@dataclass(frozen=True)
class Advice:
    """method: "zero-shot", "head", "auto-head", "lora" or "full"; why: in one sentence; reembed:
    whether the index must be embedded anew.
    """

    method: str
    why: str
    reembed: bool


def advise(counts: Sequence[int], *, accelerator: bool) -> Advice:
    """counts: labelled images of each class; accelerator: whether a GPU is at hand."""
    shots, total = min(counts, default=0), sum(counts)
    if shots == 0:
        return Advice("zero-shot", "a class has no image, so words have to do", reembed=False)
    few = f"the smallest class has {shots} image{'s' if shots > 1 else ''}"
    if shots < 4:
        return Advice(
            "head",
            f"{few}: a head that starts from the words and is held near them (a fresh linear head "
            "would be worse than the words alone)",
            reembed=False,
        )
    if shots < 16 or not accelerator:
        reason = (
            few if shots < 16 else f"{few}, but there is no accelerator to tune the model itself"
        )
        return Advice(
            "auto-head",
            f"{reason}: Gaussian discriminant or text head, whichever does better in "
            "cross-validation on these images",
            reembed=False,
        )
    if total >= FULL_FROM:
        return Advice(
            "full",
            f"{total} images and an accelerator: all weights at 1e-5..3e-5, then interpolated with "
            "the old ones",
            reembed=True,
        )
    return Advice("lora", f"{few}, and there is an accelerator: LoRA, merged", reembed=True)
