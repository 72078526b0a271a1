"""How good ranked answers with probabilities are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

BINS = 15  # of equal width, as in the paper


@dataclass(frozen=True)
class Bin:
    """Answers whose probability lies in one interval.

    low, high: the interval; images: how many; probability: their mean; accuracy: share right
    """

    low: float
    high: float
    images: int
    probability: float
    accuracy: float


def reliability(probabilities: Floats, right: Flags) -> tuple[Bin, ...]:
    """The answers by probability, in `BINS` intervals; empty ones are left out. Both [N]."""
    # 1.0 belongs to the last interval, not to one of its own.
    places = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)
    bins = []
    for place in np.unique(places):
        inside = places == place
        bins.append(
            Bin(
                place / BINS,
                (place + 1) / BINS,
                int(inside.sum()),
                float(probabilities[inside].mean()),
                float(right[inside].mean()),
            )
        )
    return tuple(bins)


def expected_calibration_error(probabilities: Floats, right: Flags) -> float:
    """Mean distance of probability and accuracy over the bins, weighted by their images.

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017, section 2, equation 3.
    """
    bins = reliability(probabilities, right)
    off = sum(one.images * abs(one.probability - one.accuracy) for one in bins)
    return off / len(probabilities)


def risk_coverage(probabilities: Floats, right: Flags) -> tuple[Floats, Floats]:
    """Share of images answered, and share of wrong ones among those, surest first: [N], [N].

    Source: Geifman, El-Yaniv, Selective Classification for Deep Neural Networks, 2017, section 2.
    """
    order = np.argsort(-probabilities, kind="stable")
    answered = np.arange(1, len(order) + 1)
    risk: Floats = np.cumsum(~right[order]) / answered
    return answered / len(order), risk


def threshold_for(
    precision: float, probabilities: Floats, right: Flags
) -> tuple[float | None, float]:
    """The least probability to answer at, for this share of right answers; and the coverage.

    One more wrong answer than was seen is assumed, so that few images don't promise too much.
    Returns None where no threshold serves.
    Source: Angelopoulos et al., Conformal Risk Control, 2022, equation 4.
    """
    order = np.argsort(-probabilities, kind="stable")
    sorted_probabilities = probabilities[order]
    answered = np.arange(1, len(order) + 1)
    wrong = np.cumsum(~right[order])
    # 1 - 0.9 is a little less than 0.1 in floating point; a whole answer must not hang on that.
    serves = wrong + 1 <= (1 - precision) * (answered + 1) + 1e-9
    # Images of equal probability are answered together or not at all.
    last_of_equals = np.append(sorted_probabilities[1:] != sorted_probabilities[:-1], True)
    places = np.flatnonzero(serves & last_of_equals)
    if not len(places):
        return None, 0.0
    return float(sorted_probabilities[places[-1]]), float(answered[places[-1]] / len(order))
