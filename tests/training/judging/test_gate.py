from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from training.errors import DataError
from training.judging.gate import (
    GateLimits,
    GateReport,
    calibration_rise,
    class_harm,
    gate,
    paired_bootstrap,
    share_interval,
)
from training.judging.metrics import score

CLASSES = ("a", "b", "c", "d")


def answers(right: np.ndarray, labels: torch.Tensor, margin: float = 2.0) -> torch.Tensor:
    """Logits that are right where `right` says so, with a margin."""
    chosen = torch.where(torch.as_tensor(right), labels, (labels + 1) % 4)
    return margin * F.one_hot(chosen, 4).float()


def judge(tuned: torch.Tensor, zero: torch.Tensor, labels: torch.Tensor, **more) -> GateReport:
    return gate(
        tuned,
        zero,
        labels,
        tuned_scores=score(tuned, labels, CLASSES),
        zero_scores=score(zero, labels, CLASSES),
        **more,
    )


def case(zero_accuracy: float, tuned_accuracy: float, n: int = 200, seed: int = 0):
    labels = torch.arange(n) % 4
    dice = np.random.default_rng(seed).random(n)
    return (
        answers(dice < tuned_accuracy, labels),
        answers(dice < zero_accuracy, labels),
        labels,
    )


def test_the_interval_is_that_of_resampling_by_hand() -> None:
    dice = np.random.default_rng(0)
    zero, tuned = dice.random(150) < 0.6, dice.random(150) < 0.75
    lower, mean, upper = paired_bootstrap(tuned, zero)
    difference = tuned.astype(int) - zero.astype(int)
    rows = dice.integers(0, 150, size=(20_000, 150))
    by_hand = np.quantile(difference[rows].mean(axis=1), [0.05, 0.95])
    assert mean == pytest.approx(difference.mean())
    assert [lower, upper] == pytest.approx(by_hand.tolist(), abs=0.01)
    assert paired_bootstrap(tuned, zero) == (lower, mean, upper)


def test_pairing_sees_what_two_separate_intervals_would_not() -> None:
    zero = np.array([True] * 180 + [False] * 20)
    tuned = np.array([True] * 192 + [False] * 8)
    assert paired_bootstrap(tuned, zero)[0] > 0


def test_better_passes_worse_and_equal_do_not() -> None:
    """Proof 10."""
    assert judge(*case(0.6, 0.8)).passed
    for tuned_accuracy in (0.6, 0.5, 0.605):
        report = judge(*case(0.6, tuned_accuracy))
        assert not report.passed
        assert any(failure.startswith("gain") for failure in report.failures)


def test_a_few_samples_prove_nothing() -> None:
    labels = torch.arange(8) % 4
    zero, tuned = np.arange(8) < 4, np.arange(8) < 6
    report = judge(answers(tuned, labels), answers(zero, labels), labels)
    assert report.gain[1] == 0.25
    assert not report.passed


def test_a_class_that_pays_for_the_others() -> None:
    labels = torch.arange(400) % 4
    dice = np.random.default_rng(0).random(400)
    zero = answers(dice < 0.6, labels)
    tuned = answers(np.where(labels.numpy() == 2, dice < 0.2, dice < 0.9), labels)
    report = judge(tuned, zero, labels)
    assert [failure.split(":")[0] for failure in report.failures] == ["classes"]
    assert "F1 of c goes from" in report.failures[0]
    assert judge(tuned, zero, labels, limits=GateLimits(class_drop=0.5)).passed


def test_one_lost_sample_of_a_small_class_is_chance() -> None:
    labels = torch.tensor([0] * 100 + [1] * 100 + [2] * 100 + [3] * 3)
    dice = np.random.default_rng(0).random(303)
    dice[-3:] = [0.0, 0.1, 0.5]
    zero = answers(dice < 0.6, labels)
    tuned = answers(np.where(labels.numpy() == 3, dice < 0.3, dice < 0.9), labels)
    assert judge(tuned, zero, labels).passed


def test_retention() -> None:
    tuned, zero, labels = case(0.6, 0.8)
    assert judge(tuned, zero, labels, retention=(0.70, 0.69)).passed
    report = judge(tuned, zero, labels, retention=(0.70, 0.68))
    assert [failure.split(":")[0] for failure in report.failures] == ["retention"]


def test_retention_that_nobody_measured_is_no_pass() -> None:
    tuned, zero, labels = case(0.6, 0.8)
    report = judge(tuned, zero, labels, retention_unknown=True)
    assert [failure.split(":")[0] for failure in report.failures] == ["retention"]
    assert report.tests[-1].measured is None
    assert "give a folder of other categories" in report.failures[0]


def test_the_interval_of_a_share() -> None:
    low, high = share_interval(np.array([True] * 80 + [False] * 20))
    half = 1.96 * (0.8 * 0.2 / 100) ** 0.5  # the normal approximation
    assert low == pytest.approx(0.8 - half, abs=0.02)
    assert high == pytest.approx(0.8 + half, abs=0.02)
    assert share_interval(np.array([True] * 5)) == (1.0, 1.0)


def test_overconfidence() -> None:
    tuned, zero, labels = case(0.6, 0.7, n=400)
    assert judge(tuned, zero, labels).passed
    report = judge(100 * tuned, zero, labels)
    assert [failure.split(":")[0] for failure in report.failures] == ["calibration"]


def test_the_interval_of_the_calibration_error_is_that_of_resampling_by_hand() -> None:
    tuned, zero, labels = case(0.6, 0.7, n=120)
    tuned = tuned + torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
    dice = np.random.default_rng(1)
    rises = []
    for _ in range(1_000):
        rows = torch.from_numpy(dice.integers(0, 120, size=120))
        errors = [score(x[rows], labels[rows], CLASSES).calibration_error for x in (tuned, zero)]
        rises.append(errors[0] - errors[1])
    found = calibration_rise(tuned, zero, labels)
    assert found == pytest.approx(np.quantile(rises, [0.025, 0.975]).tolist(), abs=0.015)
    assert found == calibration_rise(tuned, zero, labels)
    assert calibration_rise(zero, zero, labels) == (0.0, 0.0)


def test_a_small_rise_of_the_calibration_error_is_refused_where_it_is_sure() -> None:
    """Confidence 0.711 in all answers: 0.6 of them right before, 0.85 of them after."""
    verdicts = {}
    for n in (40, 4000):
        labels = torch.arange(n) % 4
        zero, tuned = (np.arange(n) % 40 < 40 * share for share in (0.6, 0.85))
        report = judge(answers(tuned, labels), answers(zero, labels), labels)
        [test] = [test for test in report.tests if test.name == "calibration"]
        verdicts[n] = test.passed
    assert verdicts == {40: True, 4000: False}


def test_scores_by_hand() -> None:
    labels = torch.tensor([0, 0, 1, 2])
    logits = torch.tensor([[4.0, 0, 0, 0], [0, 4.0, 0, 0], [0, 4.0, 0, 0], [0, 0, 0, 4.0]])
    found = score(logits, labels, CLASSES)
    assert found.top1 == 0.5
    assert found.top5 == 1.0
    assert found.per_class == {"a": 0.5, "b": 1.0, "c": 0.0}
    assert found.n == 4
    confidence = float(logits.softmax(1).max())
    assert found.calibration_error == pytest.approx(confidence - 0.5, abs=1e-5)
    with pytest.raises(DataError, match="held-out"):
        score(logits[:0], labels[:0], CLASSES)


def test_an_image_that_answers_twice_counts_once() -> None:
    tuned, zero, labels = case(0.6, 0.72, n=40)
    once = judge(tuned, zero, labels)
    image = torch.arange(40).repeat(9)
    nine = judge(tuned.repeat(9, 1), zero.repeat(9, 1), labels.repeat(9), image=image)
    assert nine.gain == pytest.approx(once.gain)
    assert [t.passed for t in nine.tests] == [t.passed for t in once.tests]
    fooled = judge(tuned.repeat(9, 1), zero.repeat(9, 1), labels.repeat(9))
    assert fooled.gain[0] > once.gain[0] + 0.01


def test_a_class_that_was_named_too_often_may_lose_recall() -> None:
    """Zero-shot calls nearly everything "a": its recall of 100 % is no merit."""
    labels = torch.arange(400) % 4
    dice = np.random.default_rng(0)
    said = torch.where(torch.as_tensor(dice.random(400) < 0.8), torch.zeros_like(labels), labels)
    zero = 2.0 * F.one_hot(said, 4).float()
    tuned = answers(dice.random(400) < 0.8, labels)
    harm = class_harm(tuned, zero, labels, 4)
    assert harm.p > 0.05
    assert "classes" not in [
        test.name for test in judge(tuned, zero, labels).tests if not test.passed
    ]


def test_harm_by_chance_is_found_in_one_of_twenty_tasks_however_many_classes() -> None:
    found = 0
    for seed in range(60):
        dice = np.random.default_rng(seed)
        labels = torch.arange(200) % 20
        sides = []
        for _ in range(2):
            wrong = torch.as_tensor(dice.integers(1, 20, 200))
            said = torch.where(
                torch.as_tensor(dice.random(200) < 0.6), labels, (labels + wrong) % 20
            )
            sides.append(F.one_hot(said, 20).float())
        found += class_harm(sides[0], sides[1], labels, 20, seed=seed).p <= 0.05
    assert found <= 8  # 3 expected; more than 8 come in one of 200 rounds
