"""How good ranked answers with probabilities are."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.category_index import CategoryIndex
from indexer.errors import ImageFolderError
from indexer.evaluation.labelled_images import UNKNOWN, EmbeddedImages
from indexer.ranking.calibration import Threshold

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


# ---- How well an index recognises labelled images.


PRECISIONS = (0.8, 0.9, 0.95, 0.98, 0.99)


_TOP = 5


_AT_ONCE = 256  # images ranked together


_CURVE = 200  # points of the risk-coverage curve


_CONFUSIONS = 100


_MISTAKES = 24


@dataclass(frozen=True)
class ClassResult:
    """One label: its images, how many times it was answered, and how often rightly.

    precision: None if it was never answered
    """

    label: str
    images: int
    answers: int
    recall: float
    precision: float | None


@dataclass(frozen=True)
class Confusion:
    """Images of one label that were answered with another."""

    label: str
    answer: str
    images: int


@dataclass(frozen=True)
class Mistake:
    """An image that was answered wrongly, and how surely."""

    path: str
    label: str
    answer: str
    probability: float


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    images: that could be read; skipped: that couldn't, with the reason
    top1, top5: share of images whose label is the best, or among the five best, match
    ece: expected calibration error of the best match's probability
    coverage: for each precision the threshold and the share answered, on these very images
    risk_coverage: pairs of (share answered, share wrong among those), surest first
    confusions: most frequent first; mistakes: surest first
    """

    images: int
    skipped: tuple[tuple[str, str], ...]
    labels: int
    categories: int
    top1: float
    top5: float
    ece: float
    probability_kind: str
    coverage: tuple[Threshold, ...]
    classes: tuple[ClassResult, ...]
    reliability: tuple[Bin, ...]
    risk_coverage: tuple[tuple[float, float], ...]
    confusions: tuple[Confusion, ...]
    mistakes: tuple[Mistake, ...]

    def as_json(self) -> dict[str, Any]:
        """The evaluation as JSON values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Judged:
    """The best match of each image: [N] each.

    right: it is the image's label, or background where the label is `unknown`
    among_five: the label is among the five best
    """

    answers: tuple[str, ...]
    probabilities: np.ndarray
    right: np.ndarray
    among_five: np.ndarray


def judge(index: CategoryIndex, images: EmbeddedImages) -> Judged:
    """Rank the images. Raises: ImageFolderError for labels that aren't in the index."""
    _check_labels(index, images)
    answers: list[str] = []
    right: list[bool] = []
    probabilities: list[float] = []
    among: list[bool] = []
    for start in range(0, len(images.paths), _AT_ONCE):
        rankings = index.rank(images.vectors[start : start + _AT_ONCE], _TOP)
        for ranking, label in zip(rankings, images.labels[start:], strict=False):
            best = ranking.matches[0]
            answers.append(best.label)
            right.append(best.label == label or (label == UNKNOWN and best.background))
            probabilities.append(best.probability)
            among.append(any(match.label == label for match in ranking.matches))
    return Judged(
        tuple(answers),
        np.array(probabilities),
        np.array(right, dtype=np.bool_),
        np.array(among, dtype=np.bool_),
    )


def evaluate(index: CategoryIndex, images: EmbeddedImages) -> Evaluation:
    """Compare the index's answers with the labels.

    Raises: ImageFolderError for labels that aren't in the index.
    """
    judged = judge(index, images)
    known = np.array([label != UNKNOWN for label in images.labels])
    shares, risks = risk_coverage(judged.probabilities, judged.right)
    points = np.unique(np.linspace(0, len(shares) - 1, _CURVE).astype(np.int64))
    return Evaluation(
        images=len(images.paths),
        skipped=tuple((skipped.path, skipped.reason) for skipped in images.skipped),
        labels=len(set(images.labels)),
        categories=len(index),
        top1=float(judged.right[known].mean()) if known.any() else 0.0,
        top5=float(judged.among_five[known].mean()) if known.any() else 0.0,
        ece=expected_calibration_error(judged.probabilities, judged.right),
        probability_kind=index.probability_kind,
        coverage=thresholds(judged),
        classes=_classes(images.labels, judged),
        reliability=reliability(judged.probabilities, judged.right),
        risk_coverage=tuple((float(shares[at]), float(risks[at])) for at in points),
        confusions=_confusions(images.labels, judged),
        mistakes=_mistakes(images, judged),
    )


def thresholds(judged: Judged) -> tuple[Threshold, ...]:
    """For each of `PRECISIONS` the least probability to answer at, and the coverage."""
    found = []
    for precision in PRECISIONS:
        least, coverage = threshold_for(precision, judged.probabilities, judged.right)
        found.append(Threshold(precision, least, coverage))
    return tuple(found)


def _check_labels(index: CategoryIndex, images: EmbeddedImages) -> None:
    wanted = sorted(set(images.labels) - {UNKNOWN})
    at = index.positions(wanted)
    missing = [label for label, place in zip(wanted, at, strict=True) if place < 0]
    if missing:
        shown = ", ".join(repr(label) for label in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ImageFolderError(
            f"the index has no category {shown}{more}; name the folders like its labels, or "
            f"{UNKNOWN!r} for images of none of them",
            param="images",
        )


def _classes(labels: tuple[str, ...], judged: Judged) -> tuple[ClassResult, ...]:
    images = Counter(labels)
    answers = Counter(judged.answers)
    right = Counter(label for label, is_right in zip(labels, judged.right, strict=True) if is_right)
    return tuple(
        ClassResult(
            label,
            images[label],
            answers[label],
            right[label] / images[label],
            right[label] / answers[label] if answers[label] else None,
        )
        for label in sorted(images)
    )


def _confusions(labels: tuple[str, ...], judged: Judged) -> tuple[Confusion, ...]:
    pairs = Counter(
        (label, said)
        for label, said, right in zip(labels, judged.answers, judged.right, strict=True)
        if not right
    )
    ordered = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(Confusion(label, said, n) for (label, said), n in ordered[:_CONFUSIONS])


def _mistakes(images: EmbeddedImages, judged: Judged) -> tuple[Mistake, ...]:
    wrong = np.flatnonzero(~judged.right)
    surest = wrong[np.argsort(-judged.probabilities[wrong], kind="stable")][:_MISTAKES]
    return tuple(
        Mistake(
            images.paths[at], images.labels[at], judged.answers[at], float(judged.probabilities[at])
        )
        for at in surest
    )
