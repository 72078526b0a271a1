"""The gate: an adapter goes live only if it is surely better than zero-shot, and breaks nothing.

    gain          d_i = [tuned right] - [zero-shot right] on each held-out sample; resampled 10,000
                  times (paired bootstrap); the lower end of the 95 % interval of mean(d) must be
                  above 0
    classes       no class loses more than `class_drop` of its accuracy
    retention     accuracy on categories that weren't trained on falls by at most one point; where
                  it is unknown, that is a failure too
    calibration   the calibration error is not surely worse: of its rise, by the same kind of
                  bootstrap, the lower end must not be above 0

(That the stored answers are reproduced, and that files and fingerprint are right, is checked
whenever an adapter is loaded.)

Sources: Efron & Tibshirani 1993, chapter 13 (percentile interval); Guo et al. 2017,
arXiv:1706.04599, section 2 (expected calibration error).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from training.judging.metrics import BINS, Scores

RESAMPLES = 10_000
CALIBRATION_RESAMPLES = 2_000  # each costs a pass over the samples
_AT_ONCE = 100


@dataclass(frozen=True)
class GateLimits:
    """How much may be lost, as shares. class_drop: beyond one sample of a class: that is chance."""

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
    gain: tuple[float, float, float]  # lower end, mean, upper end

    @property
    def passed(self) -> bool:
        """Whether every test passed."""
        return all(test.passed for test in self.tests)

    @property
    def failures(self) -> tuple[str, ...]:
        """What failed, in words."""
        return tuple(f"{test.name}: {test.detail}" for test in self.tests if not test.passed)


def paired_bootstrap(
    tuned_right: np.ndarray, zero_right: np.ndarray, *, seed: int = 0
) -> tuple[float, float, float]:
    """Boolean [N] each, over the same samples -> lower end, mean and upper end of the gain (95 %).

    A resample of N differences in {-1, 0, 1} is a multinomial draw of their counts, so that 10,000
    of them cost nothing.
    """
    difference = tuned_right.astype(np.int64) - zero_right.astype(np.int64)
    n = len(difference)
    shares = np.array([(difference == value).sum() for value in (-1, 0, 1)]) / n
    draws = np.random.default_rng(seed).multinomial(n, shares, size=RESAMPLES)
    gains = (draws[:, 2] - draws[:, 0]) / n
    lower, upper = np.quantile(gains, [0.025, 0.975])
    return float(lower), float(difference.mean()), float(upper)


def calibration_rise(
    tuned: Tensor, zero: Tensor, labels: Tensor, *, seed: int = 0
) -> tuple[float, float]:
    """Logits [N, C] each, labels [N] -> lower and upper end of how much the expected calibration
    error rises (95 %, paired bootstrap).

    In a resample that holds sample i w_i times the error is sum_b |sum_(i in b) w_i (right_i -
    confidence_i)| / N over the bins b of confidence: one matrix product for many resamples.
    """
    n = len(labels)
    gaps = np.concatenate([_gaps(tuned, labels), _gaps(zero, labels)], axis=1)  # (N, 2 BINS)
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


def _gaps(logits: Tensor, labels: Tensor) -> np.ndarray:
    """[right] - confidence of each sample, in the column of its bin: float64 [N, BINS]."""
    confidence, chosen = logits.double().softmax(dim=1).max(dim=1)
    gap = (chosen == labels).double() - confidence
    gaps = np.zeros((len(labels), BINS))
    column = (confidence * BINS).long().clamp(max=BINS - 1)
    gaps[np.arange(len(labels)), column.numpy()] = gap.numpy()
    return gaps


def gate(
    tuned: Tensor,
    zero: Tensor,
    labels: Tensor,
    *,
    tuned_scores: Scores,
    zero_scores: Scores,
    retention: tuple[float, float] | None = None,
    retention_unknown: bool = False,
    limits: GateLimits | None = None,
) -> GateReport:
    """Judge tuned against zero-shot logits [N, C] on held-out samples with labels [N].

    retention: accuracy on categories not trained on, (zero-shot, tuned); None where the method
    can't touch them (heads add categories and leave the towers alone)
    retention_unknown: the method may have touched them, but nobody looked
    """
    limits = limits or GateLimits()
    rise = calibration_rise(tuned, zero, labels)
    rights = [(logits.argmax(dim=1) == labels).numpy() for logits in (tuned, zero)]
    gain = paired_bootstrap(rights[0], rights[1])
    tests = [
        GateTest(
            "gain",
            gain[0] > 0,
            gain[0],
            0.0,
            f"tuned - zero-shot is {gain[1]:+.1%}, 95 % interval {gain[0]:+.1%} to {gain[2]:+.1%} "
            f"over {len(labels)} samples; its lower end must be above 0",
        ),
        _classes(tuned_scores, zero_scores, labels, limits.class_drop),
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


def _classes(tuned: Scores, zero: Scores, labels: Tensor, limit: float) -> GateTest:
    counts = labels.bincount(minlength=len(zero.per_class)).tolist()
    present = [count for count in counts if count]
    drops = {
        # one sample more or less is chance, however few there are
        name: zero.per_class[name] - tuned.per_class[name] - 1 / count
        for name, count in zip(zero.per_class, present, strict=True)
    }
    worst = max(drops, key=lambda name: drops[name])
    return GateTest(
        "classes",
        drops[worst] <= limit + 1e-9,
        drops[worst],
        limit,
        f"{worst} goes from {zero.per_class[worst]:.0%} to {tuned.per_class[worst]:.0%}",
    )


def share_interval(right: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """Boolean [N] -> lower and upper end of the share's 95 % interval (bootstrap)."""
    n = len(right)
    draws = np.random.default_rng(seed).binomial(n, right.mean(), size=RESAMPLES) / n
    lower, upper = np.quantile(draws, [0.025, 0.975])
    return float(lower), float(upper)
