"""Findings from the course of a run: each rule is a formula over the history.

Notation: L_0 the first loss, L_e and V_e training and validation loss after epoch e (eval mode, no
regularisers), A_e and B_e the accuracies, chance the share of the largest class, k(a) = (a -
chance) / (1 - chance), se(a) = sqrt(chance (1 - chance) / validation samples).

    DIVERGED          a loss that is no number; or L_E > 1.5 max(L_0, uninformed); or a step's loss
                      beyond 5 times that
    LABEL_BUG         k(A_E) > 0.5, but k(B_E) < 0.25 and V never below 0.9 uninformed; or, before
                      training, the training split at chance while validation is known
    BAD_INIT          L_0 > 1.5 expected + 0.5; or the signal vanishes or explodes in the layers
    DECAYED_TOO_EARLY the rate falls by half at once, or below a tenth of its peak before half-time;
                      the loss had been falling, then falls at less than a fifth of that pace, with
                      k(A_E) < 0.9 and 30 % of the run left
    OVERFIT           A_E - B_E > 0.1 + 2 se, and V has risen by 10 % from its minimum, or the gap
                      is beyond 0.3
    STILL_IMPROVING   V's mean over the last fifth is below that of the fifth before by more than
                      5 % of all its fall
    PLATEAU           L falls by less than 2 % of all its fall over the last third, at half the peak
                      rate or more, with k(A_E) < 0.95
    UNDERFIT          k(A_E) and k(B_E) both below 0.6, and close together
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from training.diagnosis.verdicts import Diagnosis, Finding, Verdict
from training.diagnosis.wiring import wiring_findings
from training.history import History

_FEWEST_EPOCHS = 5  # fewer make no curve


@dataclass(frozen=True)
class Curves:
    """The history in the notation above."""

    loss: list[float]
    val_loss: list[float]
    accuracy: float
    val_accuracy: float | None
    chance: float
    error: float
    first: float
    expected: float
    uninformed: float
    rates: list[float]

    @classmethod
    def of(cls, history: History) -> Curves:
        """Read a history."""
        facts = history.facts
        chance = float(facts["majority"])
        held_out = int(facts["val_count"])
        val = history.column("val/accuracy")
        return cls(
            loss=history.column("train/loss"),
            val_loss=history.column("val/loss"),
            accuracy=history.column("train/accuracy")[-1] if history.epochs else 0.0,
            val_accuracy=val[-1] if val else None,
            chance=chance,
            error=math.sqrt(chance * (1 - chance) / held_out) if held_out else math.inf,
            first=float(facts["initial_loss"]),
            expected=float(facts["expected_loss"]),
            uninformed=float(facts["uninformed_loss"]),
            rates=history.lr,
        )

    def skill(self, accuracy: float) -> float:
        """k(a): 0 at chance, 1 for all right."""
        return (accuracy - self.chance) / (1 - self.chance) if self.chance < 1 else 0.0

    @property
    def gap(self) -> float:
        """A_E - B_E; 0 without validation."""
        return 0.0 if self.val_accuracy is None else self.accuracy - self.val_accuracy

    @property
    def peak_rate(self) -> float:
        """The largest rate of the run."""
        return max(self.rates, default=0.0)


def curve_findings(history: History) -> Iterator[Finding]:
    """All rules above, in the order of their weight."""
    if not history.facts:
        return
    curves = Curves.of(history)
    rules = [_diverged(history, curves), _label_bug(history, curves), _bad_init(history, curves)]
    if len(curves.loss) >= _FEWEST_EPOCHS:
        rules += [
            _decayed_too_early(history, curves),
            _overfit(curves),
            _still_improving(curves),
            _plateau(curves),
            _underfit(curves),
        ]
    yield from (finding for finding in rules if finding is not None)


def _diverged(history: History, c: Curves) -> Finding | None:
    every = [*history.loss, *c.loss, *c.val_loss]
    if not all(math.isfinite(value) for value in every):
        return Finding(Verdict.DIVERGED, "the loss became infinite or no number")
    reference = max(c.first, c.uninformed)
    if c.loss and c.loss[-1] > 1.5 * reference:
        return Finding(
            Verdict.DIVERGED, f"the loss ended at {c.loss[-1]:.3g}, after a start at {c.first:.3g}"
        )
    highest = max(history.loss, default=0.0)
    if highest > 5 * max(reference, history.loss[0] if history.loss else 0.0):
        return Finding(
            Verdict.DIVERGED, f"a step's loss reached {highest:.3g}, after a start at {c.first:.3g}"
        )
    return None


def _label_bug(history: History, c: Curves) -> Finding | None:
    before_train = history.facts["initial_train_accuracy"]
    before_val = history.facts["initial_val_accuracy"]
    if before_val is not None and c.skill(before_val) > 0.3 and before_val > c.chance + 4 * c.error:
        train_error = c.error * math.sqrt(history.facts["val_count"] / history.facts["train_count"])
        if before_train < c.chance + 2 * train_error:
            return Finding(
                Verdict.LABEL_BUG,
                f"before training {before_val:.0%} of validation are right, but only "
                f"{before_train:.0%} of training: the training labels don't belong to the images",
            )
    if c.val_accuracy is None or not c.val_loss:
        return None
    learnt = c.skill(c.accuracy) > 0.5 and c.gap > 4 * c.error
    nothing_carries_over = c.skill(c.val_accuracy) < 0.25 and min(c.val_loss) > 0.9 * c.uninformed
    if learnt and nothing_carries_over:
        return Finding(
            Verdict.LABEL_BUG,
            f"training is at {c.accuracy:.0%}, but validation at {c.val_accuracy:.0%} (chance: "
            f"{c.chance:.0%}), and its loss was never much below that of knowing nothing",
        )
    return None


def _bad_init(history: History, c: Curves) -> Finding | None:
    if c.first > 1.5 * c.expected + 0.5:
        return Finding(
            Verdict.BAD_INIT, f"the first loss is {c.first:.3g}, expected {c.expected:.3g}"
        )
    if history.facts["signal"]:
        return Finding(Verdict.BAD_INIT, str(history.facts["signal"]))
    return None


def _decayed_too_early(history: History, c: Curves) -> Finding | None:
    ends, total = history.epoch_ends, len(history.lr)
    rates = [history.lr[end - 1] for end in ends]
    if c.skill(c.accuracy) >= 0.9 or not c.peak_rate:
        return None
    all_loss = [c.first, *c.loss]  # all_loss[e] is the loss after e epochs
    for epoch in range(1, len(rates)):
        cut = rates[epoch] <= 0.5 * rates[epoch - 1]
        low = rates[epoch] < 0.1 * c.peak_rate <= rates[epoch - 1]
        if not (cut or (low and ends[epoch - 1] < 0.5 * total)):
            continue
        left = len(c.loss) - epoch - 1  # epochs after the one that the cut fell in
        if left < max(2, 0.3 * len(c.loss) - 1):
            continue
        span = min(3, epoch)
        before = (all_loss[epoch - span] - all_loss[epoch]) / span
        after = (all_loss[epoch + 1] - all_loss[-1]) / left
        fall = all_loss[0] - min(all_loss)
        if before > 0.02 * fall and after < 0.2 * before and before * left > 0.1 * all_loss[-1]:
            return Finding(
                Verdict.DECAYED_TOO_EARLY,
                f"before the cut in epoch {epoch + 1} the loss fell by {before:.3g} an epoch, "
                f"after it by {max(after, 0.0):.2g}, with training accuracy at {c.accuracy:.0%}",
            )
    return None


def _overfit(c: Curves) -> Finding | None:
    if c.val_accuracy is None or c.gap <= 0.1 + 2 * c.error:
        return None
    lowest = min(c.val_loss)
    risen = c.val_loss[-1] > 1.1 * lowest
    if risen or c.gap > 0.3:
        return Finding(
            Verdict.OVERFIT,
            f"training {c.accuracy:.0%}, validation {c.val_accuracy:.0%}; the validation loss "
            "ended "
            f"at {c.val_loss[-1]:.3g}, its lowest was {lowest:.3g}",
        )
    return None


def _still_improving(c: Curves) -> Finding | None:
    curve = c.val_loss or c.loss
    fifth = max(2, len(curve) // 5)
    if len(curve) < 2 * fifth:
        return None
    before = sum(curve[-2 * fifth : -fifth]) / fifth
    last = sum(curve[-fifth:]) / fifth
    fall = max(curve[0], c.first) - min(curve)
    if fall > 0 and before - last > 0.05 * fall:
        return Finding(
            Verdict.STILL_IMPROVING,
            f"over the last {fifth} epochs the {'validation' if c.val_loss else 'training'} loss "
            f"still fell from {before:.3g} to {last:.3g}",
        )
    return None


def _plateau(c: Curves) -> Finding | None:
    third = max(2, len(c.loss) // 3)
    fall = c.first - min(c.loss)
    flat = c.loss[-third - 1] - c.loss[-1] < 0.02 * max(fall, 0.1 * c.first)
    high = c.rates[-1] >= 0.5 * c.peak_rate if c.rates else False
    if flat and high and c.skill(c.accuracy) < 0.95:
        return Finding(
            Verdict.PLATEAU,
            f"the training loss has stayed at {c.loss[-1]:.3g} for {third} epochs at "
            f"{c.rates[-1]:.2g} of a rate of {c.peak_rate:.2g}",
        )
    return None


def _underfit(c: Curves) -> Finding | None:
    held_out = c.accuracy if c.val_accuracy is None else c.val_accuracy
    close = abs(c.gap) < 0.1 + 2 * (c.error if math.isfinite(c.error) else 0.0)
    if c.skill(c.accuracy) < 0.6 and c.skill(held_out) < 0.6 and close:
        return Finding(
            Verdict.UNDERFIT,
            f"training {c.accuracy:.0%} and validation {held_out:.0%} are both low",
        )
    return None


def diagnose(history: History) -> Diagnosis:
    """Every finding, the weightiest first; HEALTHY where there is none."""
    findings = [*wiring_findings(history), *curve_findings(history)]
    if not findings:
        epochs = len(history.epochs)
        findings = [Finding(Verdict.HEALTHY, f"nothing stands out over {epochs} epochs")]
    return Diagnosis(tuple(findings))
