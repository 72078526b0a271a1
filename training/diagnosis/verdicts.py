"""The verdicts: what can be said of a run, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """One word for a run. In the order of their weight: the first that holds is the verdict."""

    LEAK = "LEAK"
    CHANNEL_ORDER = "CHANNEL_ORDER"
    DOUBLE_NORMALISATION = "DOUBLE_NORMALISATION"
    DOUBLE_SOFTMAX = "DOUBLE_SOFTMAX"
    DETACHED_GRAPH = "DETACHED_GRAPH"
    FROZEN_HEAD = "FROZEN_HEAD"
    DIVERGED = "DIVERGED"
    LABEL_BUG = "LABEL_BUG"
    BAD_INIT = "BAD_INIT"
    DECAYED_TOO_EARLY = "DECAYED_TOO_EARLY"
    OVERFIT = "OVERFIT"
    STILL_IMPROVING = "STILL_IMPROVING"
    PLATEAU = "PLATEAU"
    UNDERFIT = "UNDERFIT"
    HEALTHY = "HEALTHY"


ADVICE: dict[Verdict, str] = {
    Verdict.LEAK: "Take the validation images out of training (ImageFolder does), then train "
    "again: "
    "the validation numbers of this run are too good.",
    Verdict.CHANNEL_ORDER: "Training and validation disagree on red and blue: read both with the "
    "same "
    "code, as RGB (cv2.imread gives BGR).",
    Verdict.DOUBLE_NORMALISATION: "The images are standardised before they reach the "
    "standardisation: "
    "give raw pixels in [0, 1], or leave preprocess out.",
    Verdict.DOUBLE_SOFTMAX: "The network ends in a softmax, and the loss applies another: return "
    "logits.",
    Verdict.DETACHED_GRAPH: "Some trainable weights get no gradient: look for detach(), no_grad() "
    "or "
    ".data between them and the loss.",
    Verdict.FROZEN_HEAD: "The last layer can't change: set requires_grad on it.",
    Verdict.DIVERGED: "Divide the learning rate by 10; if that isn't enough, add warmup and "
    "clip=1.0.",
    Verdict.LABEL_BUG: "Validation stays at chance: look at a few images with their labels, in "
    "both "
    "splits, and check that class numbers mean the same in both.",
    Verdict.BAD_INIT: "Choose another initialisation (He for ReLU, Xavier for tanh, zero for a "
    "fresh "
    "linear head, the text vectors for a CLIP head), or add BatchNorm.",
    Verdict.DECAYED_TOO_EARLY: "The loss was still falling when the rate was cut: decay later, or "
    "use "
    "a cosine schedule.",
    Verdict.OVERFIT: "Regularise more (augmentation, mixup, weight decay, dropout, early "
    "stopping), "
    "add images, or take a smaller model.",
    Verdict.STILL_IMPROVING: "Train longer: validation was still getting better at the end.",
    Verdict.PLATEAU: "The loss has been flat at a high rate: decay the learning rate there.",
    Verdict.UNDERFIT: "Training and validation are both low: take a larger model, regularise "
    "less, or "
    "raise the learning rate.",
    Verdict.HEALTHY: "Nothing to mend.",
}


@dataclass(frozen=True)
class Finding:
    """One verdict that holds, with the numbers behind it."""

    verdict: Verdict
    evidence: str

    @property
    def advice(self) -> str:
        """What to do about it."""
        return ADVICE[self.verdict]


@dataclass(frozen=True)
class Diagnosis:
    """All findings, the weightiest first; never empty."""

    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """The weightiest finding's."""
        return self.findings[0].verdict

    @property
    def evidence(self) -> str:
        """The weightiest finding's numbers."""
        return self.findings[0].evidence

    @property
    def advice(self) -> str:
        """What to do first."""
        return self.findings[0].advice

    def __str__(self) -> str:
        return "\n".join(f"{f.verdict}: {f.evidence}. {f.advice}" for f in self.findings)
