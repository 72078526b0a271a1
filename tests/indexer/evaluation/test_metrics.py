from __future__ import annotations

import numpy as np
import pytest

from indexer.evaluation.evaluation import (
    expected_calibration_error,
    reliability,
    risk_coverage,
    threshold_for,
)


def test_calibration_error_by_hand():
    probabilities = np.array([0.9, 0.9, 0.1, 1.0])
    right = np.array([True, False, False, True])
    # bins of 1/15: {0.9, 0.9}: 0.9 against 0.5; {0.1}: 0.1 against 0; {1.0}: 1 against 1
    assert expected_calibration_error(probabilities, right) == pytest.approx((0.8 + 0.1) / 4)
    assert [one.images for one in reliability(probabilities, right)] == [1, 2, 1]


def test_risk_and_coverage_surest_first():
    shares, risks = risk_coverage(np.array([0.2, 0.9, 0.5]), np.array([False, True, False]))
    assert shares.tolist() == pytest.approx([1 / 3, 2 / 3, 1])
    assert risks.tolist() == pytest.approx([0, 1 / 2, 2 / 3])


def test_a_threshold_assumes_one_more_wrong_answer():
    probabilities = np.linspace(1, 0.01, 100)
    right = np.arange(100) < 50
    least, coverage = threshold_for(0.9, probabilities, right)
    # (wrong + 1) / (answered + 1) <= 0.1: 4 wrong of 54 pass, 5 wrong of 55 don't
    assert coverage == pytest.approx(0.54)
    assert least == pytest.approx(probabilities[53])


def test_few_images_promise_nothing():
    assert threshold_for(0.9, np.array([0.9] * 8), np.ones(8, dtype=bool)) == (None, 0.0)
    assert threshold_for(0.9, np.array([0.9] * 9), np.ones(9, dtype=bool)) == (0.9, 1.0)


def test_equal_probabilities_stand_or_fall_together():
    probabilities = np.array([0.9] * 20 + [0.5] * 20)
    right = np.array([True] * 30 + [False] * 10)
    assert threshold_for(0.9, probabilities, right) == (0.9, 0.5)
