"""How cosines become probabilities, and which categories are the best.

Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
2021, section 3.1.4 (softmax of scaled cosines); Zhai et al., Sigmoid Loss for Language Image
Pre-Training, 2023, section 3.2 (sigmoid with scale and bias); Guo et al., On Calibration of Modern
Neural Networks, 2017, section 4.2 (temperature).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from indexer.crowd import log_mass
from models.encoder import Vectors

Mode = Literal["single", "multi"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Odds:
    """Logits of cosines.

    A softmax model's categories compete (`single`); for independent probabilities (`multi`) each
    is set against a crowd, see `indexer.crowd`. A sigmoid model's are independent anyway.

    scale, bias: the model's own; bias is None for a softmax model
    temperature: divides a softmax model's logits; 1 unless calibrated
    slope, offset: applied to the logits of independent probabilities; 1 and 0 unless calibrated
    """

    scale: float
    bias: float | None
    temperature: float = 1.0
    slope: float = 1.0
    offset: float = 0.0

    @property
    def is_softmax(self) -> bool:
        """Whether the categories compete: their probabilities add up to one."""
        return self.bias is None

    @property
    def factor(self) -> float:
        """On the cosine, before a softmax."""
        return self.scale / self.temperature

    def independent(
        self, scores: NDArray[np.floating], crowd: NDArray[np.floating], size: int
    ) -> Floats:
        """Logits for sigmoids: cosines of one image, [C] -> float64 [C].

        crowd: cosines of a sample of the crowd with the same image, [S]; size: of the crowd
        """
        against = -self.bias if self.bias is not None else log_mass(crowd, self.scale, size)
        return self.slope * (self.scale * scores.astype(np.float64) - against) + self.offset


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))


def best(scores: Vectors, count: int) -> NDArray[np.int64]:
    """Positions of the `count` greatest, greatest first; equals in order of position.

    scores: float32 [C]; returns int64 [min(count, C)].
    """
    if count < len(scores):
        # The count-th greatest value, then everything above it and the first of its equals:
        # argpartition alone would pick any of the equals.
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        above = np.flatnonzero(scores > least)
        equal = np.flatnonzero(scores == least)[: count - len(above)]
        chosen = np.sort(np.concatenate([above, equal]))
    else:
        chosen = np.arange(len(scores))
    return chosen[np.argsort(-scores[chosen], kind="stable")]
