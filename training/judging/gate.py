"""The gate: an adapter becomes current only if it surely gains on zero-shot and harms nothing.

    gain          d_i = tuned - zero-shot, each the share of right answers for image i; images are
                  resampled 10,000 times (paired bootstrap); the lower end of the one-sided 95 %
                  interval of mean(d) must be above 0
    classes       no class loses F1 beyond chance: a permutation test that exchanges the two answers
                  of an image, corrected for the number of classes. A fall of at most `class_drop`
                  is tolerated however certain it is. F1, because recall alone also falls where
                  zero-shot named the class too often
    retention     accuracy on categories that weren't trained on falls by at most one point; where
                  it is unknown, that is a failure too
    calibration   the calibration error is not surely worse: of its rise, by the same kind of
                  bootstrap, the lower end must not be above 0

Answers may be out of fold, an image answered once a repetition: everything is averaged by image
first, and images are what is resampled or exchanged. (That the stored answers are reproduced, and
that files and fingerprint are right, is checked whenever an adapter is loaded.)

Sources: Efron & Tibshirani 1993, chapter 13 (percentile interval) and 15 (permutation tests);
Westfall & Young 1993, "Resampling-Based Multiple Testing", section 2.5 (largest statistic of all
classes); Guo et al. 2017, arXiv:1706.04599, section 2 (expected calibration error).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from training.judging.metrics import BINS, Scores

RESAMPLES = 10_000
CALIBRATION_RESAMPLES = 2_000  # each costs a pass over the images
EXCHANGES = 2_000
SIGNIFICANCE = 0.05
_AT_ONCE = 100

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GateLimits:
    """How much may be lost, as shares. class_drop: of a class's F1, even where it is certain."""

    class_drop: float = 0.1
    retention_loss: float = 0.01


@dataclass(frozen=True)
class GateTest:
    """One test: what was measured (None: nothing), what the limit is, and whether it passed."""

    name: str
    passed: bool
    measured: float | None
    limit: float
    detail: str


@dataclass(frozen=True)
class GateReport:
    """All tests; `gain` is the interval of (tuned - zero-shot) top-1 accuracy."""

    tests: tuple[GateTest, ...]
    gain: tuple[float, float, float]  # lower end (one-sided 95 %), mean, upper end

    @property
    def passed(self) -> bool:
        """Whether every test passed."""
        return all(test.passed for test in self.tests)

    @property
    def failures(self) -> tuple[str, ...]:
        """What failed, in words."""
        return tuple(f"{test.name}: {test.detail}" for test in self.tests if not test.passed)


class ByImage:
    """Averages rows by image.

    image: which image each row answers for, int64 [M]; None: each row is an image of its own
    """

    def __init__(self, rows: int, image: NDArray[np.int64] | None) -> None:
        ids = np.arange(rows) if image is None else image
        found, self._place, counts = np.unique(ids, return_inverse=True, return_counts=True)
        self.count = len(found)
        self._share = 1 / counts[self._place]

    def mean(self, values: NDArray[np.generic]) -> Floats:
        """[M] or [M, K] -> [N] or [N, K]."""
        table = np.asarray(values, dtype=np.float64).reshape(len(self._place), -1)
        out = np.zeros((self.count, table.shape[1]))
        np.add.at(out, self._place, table * self._share[:, None])
        return out[:, 0] if values.ndim == 1 else out


def paired_bootstrap(
    tuned_right: NDArray[np.generic], zero_right: NDArray[np.generic], *, seed: int = 0
) -> tuple[float, float, float]:
    """Shares of right answers [N] each, over the same images -> lower end, mean and upper end of
    the gain: the ends of two one-sided 95 % intervals.

    A resample of N differences is a multinomial draw of how often each distinct one comes, so that
    10,000 of them cost nothing.
    """
    difference = tuned_right.astype(np.float64) - zero_right.astype(np.float64)
    values, counts = np.unique(difference.round(9), return_counts=True)
    n = len(difference)
    draws = np.random.default_rng(seed).multinomial(n, counts / n, size=RESAMPLES)
    lower, upper = np.quantile(draws @ values / n, [SIGNIFICANCE, 1 - SIGNIFICANCE])
    return float(lower), float(difference.mean()), float(upper)


def calibration_rise(
    tuned: Tensor,
    zero: Tensor,
    labels: Tensor,
    *,
    image: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> tuple[float, float]:
    """Logits [M, C] each, labels [M] -> lower and upper end of how much the expected calibration
    error rises (95 %, paired bootstrap over images).

    In a resample that holds image i w_i times the error is sum_b |sum_(i in b) w_i (right_i -
    confidence_i)| / N over the bins b of confidence: one matrix product for many resamples.
    """
    images = ByImage(len(labels), image)
    gaps = images.mean(np.concatenate([_gaps(tuned, labels), _gaps(zero, labels)], axis=1))
    n = images.count
    dice = np.random.default_rng(seed)
    rises: list[np.ndarray] = []
    for _ in range(CALIBRATION_RESAMPLES // _AT_ONCE):
        drawn = dice.integers(0, n, size=(_AT_ONCE, n))
        rows = np.arange(_AT_ONCE)[:, None] * n
        weights = np.bincount((drawn + rows).ravel(), minlength=_AT_ONCE * n).reshape(_AT_ONCE, n)
        sums = np.abs(weights @ gaps)  # (_AT_ONCE, 2 BINS)
        rises.append((sums[:, :BINS].sum(axis=1) - sums[:, BINS:].sum(axis=1)) / n)
    lower, upper = np.quantile(np.concatenate(rises), [0.025, 0.975])
    return float(lower), float(upper)


def _gaps(logits: Tensor, labels: Tensor) -> Floats:
    """[right] - confidence of each row, in the column of its bin: float64 [M, BINS]."""
    confidence, chosen = logits.double().softmax(dim=1).max(dim=1)
    gap = (chosen == labels).double() - confidence
    gaps = np.zeros((len(labels), BINS))
    column = (confidence * BINS).long().clamp(max=BINS - 1)
    gaps[np.arange(len(labels)), column.numpy()] = gap.numpy()
    return gaps


@dataclass(frozen=True)
class ClassHarm:
    """The class whose F1 falls most surely.

    number: of the class; before, after: F1; p: chance of such a fall of any class if the two
    answers of each image could be exchanged
    """

    number: int
    before: float
    after: float
    p: float


def class_harm(
    tuned: Tensor,
    zero: Tensor,
    labels: Tensor,
    classes: int,
    *,
    image: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> ClassHarm:
    """Permutation test of each class's F1, corrected for all of them by the largest statistic.

    tuned, zero: logits [M, C], or [M, C + R] with other categories; labels [M]
    """
    images = ByImage(len(labels), image)
    wanted = labels.numpy()
    sides = []
    for logits in (tuned, zero):
        named = logits.argmax(dim=1).numpy()
        hit = images.mean(_one_hot(np.where(named == wanted, wanted, classes), classes))
        sides.append((hit, images.mean(_one_hot(named, classes))))
    true = images.mean(_one_hot(wanted, classes)).sum(axis=0)
    (hit, said), (zero_hit, zero_said) = sides
    before, after = (
        _f1(h.sum(axis=0), s.sum(axis=0), true) for h, s in ((zero_hit, zero_said), (hit, said))
    )
    dice = np.random.default_rng(seed)
    swaps = dice.random((EXCHANGES, images.count)) < 0.5
    total_hit, total_said = (hit + zero_hit).sum(axis=0), (said + zero_said).sum(axis=0)
    first = swaps @ (zero_hit - hit) + hit.sum(axis=0)  # (EXCHANGES, C): the answers of one side
    first_said = swaps @ (zero_said - said) + said.sum(axis=0)
    changes = _f1(first, first_said, true) - _f1(total_hit - first, total_said - first_said, true)
    spread = np.maximum(changes.std(axis=0), 1e-12)
    observed = (after - before) / spread
    observed[(after - before) > -1e-9] = 0.0
    worst = int(observed.argmin())
    least = (changes / spread).min(axis=1)
    p = (1 + int((least <= observed[worst] + 1e-9).sum())) / (1 + EXCHANGES)
    return ClassHarm(worst, float(before[worst]), float(after[worst]), p)


def _one_hot(numbers: NDArray[np.int64], classes: int) -> Floats:
    """[M] -> [M, C]; numbers beyond the classes give a row of zeros."""
    table: Floats = (numbers[:, None] == np.arange(classes)).astype(np.float64)
    return table


def _f1(hit: Floats, said: Floats, true: Floats) -> Floats:
    score: Floats = 2 * hit / np.maximum(said + true, 1e-12)
    return score


def gate(
    tuned: Tensor,
    zero: Tensor,
    labels: Tensor,
    *,
    tuned_scores: Scores,
    zero_scores: Scores,
    image: Tensor | None = None,
    retention: tuple[float, float] | None = None,
    retention_unknown: bool = False,
    limits: GateLimits | None = None,
) -> GateReport:
    """Judge tuned against zero-shot logits [M, C] for images with labels [M].

    tuned_scores, zero_scores: of the same answers; their classes are the first columns
    image: which image each row answers for, None: each its own
    retention: accuracy on categories not trained on, (zero-shot, tuned); None where the method
    can't touch them (heads add categories and leave the towers alone)
    retention_unknown: the method may have touched them, but nobody looked
    """
    limits = limits or GateLimits()
    ids = None if image is None else image.numpy()
    images = ByImage(len(labels), ids)
    rise = calibration_rise(tuned, zero, labels, image=ids)
    right, zero_right = (
        images.mean((logits.argmax(dim=1) == labels).numpy()) for logits in (tuned, zero)
    )
    gain = paired_bootstrap(right, zero_right)
    tests = [
        GateTest(
            "gain",
            gain[0] > 0,
            gain[0],
            0.0,
            f"tuned - zero-shot is {gain[1]:+.1%}, at least {gain[0]:+.1%} with 95 % confidence, "
            f"over {images.count} images; that must be above 0",
        ),
        _classes(tuned, zero, labels, ids, zero_scores, limits.class_drop),
        GateTest(
            "calibration",
            rise[0] <= 0,
            rise[0],
            0.0,
            f"the calibration error goes from {zero_scores.calibration_error:.3f} to "
            f"{tuned_scores.calibration_error:.3f}, 95 % interval of the rise {rise[0]:+.3f} to "
            f"{rise[1]:+.3f}; its lower end must not be above 0",
        ),
    ]
    if retention_unknown:
        tests.append(
            GateTest(
                "retention",
                False,
                None,
                limits.retention_loss,
                "what the model forgets isn't known; give a folder of other categories to measure "
                "it with",
            )
        )
    elif retention is not None:
        lost = retention[0] - retention[1]
        tests.append(
            GateTest(
                "retention",
                lost <= limits.retention_loss + 1e-9,
                lost,
                limits.retention_loss,
                f"on categories not trained on, accuracy goes from {retention[0]:.1%} to "
                f"{retention[1]:.1%}",
            )
        )
    return GateReport(tuple(tests), gain)


def _classes(
    tuned: Tensor,
    zero: Tensor,
    labels: Tensor,
    image: NDArray[np.int64] | None,
    zero_scores: Scores,
    limit: float,
) -> GateTest:
    names = list(zero_scores.per_class)
    present = np.unique(labels.numpy())
    harm = class_harm(tuned, zero, labels, int(present.max()) + 1, image=image)
    drop = harm.before - harm.after
    name = names[int(np.searchsorted(present, harm.number))] if harm.number in present else "?"
    return GateTest(
        "classes",
        harm.p > SIGNIFICANCE or drop <= limit + 1e-9,
        drop,
        limit,
        f"the F1 of {name} goes from {harm.before:.0%} to {harm.after:.0%} (chance of that without "
        f"harm, corrected for {len(names)} classes: {harm.p:.1%}); it must not surely fall by more "
        f"than {limit:.0%}",
    )


def share_interval(right: NDArray[np.generic], *, seed: int = 0) -> tuple[float, float]:
    """Shares of right answers by image [N] -> ends of their mean's 95 % interval (bootstrap)."""
    values, counts = np.unique(right.astype(np.float64).round(9), return_counts=True)
    n = len(right)
    draws = np.random.default_rng(seed).multinomial(n, counts / n, size=RESAMPLES) @ values / n
    lower, upper = np.quantile(draws, [0.025, 0.975])
    return float(lower), float(upper)
