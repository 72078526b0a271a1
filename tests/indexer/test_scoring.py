from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.scoring import Odds, best, sigmoid, softmax


def test_softmax_and_sigmoid_by_hand():
    assert softmax(np.array([math.log(1), math.log(3)])).tolist() == pytest.approx([0.25, 0.75])
    assert sigmoid(np.array([0.0, math.log(3), -1000, 1000])).tolist() == pytest.approx(
        [0.5, 0.75, 0, 1]
    )


def test_a_million_small_terms_are_not_lost():
    logits = np.zeros(1_000_001)
    logits[0] = math.log(1_000_000)
    assert softmax(logits)[0] == pytest.approx(0.5, abs=1e-12)


@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=30),
    st.integers(min_value=1, max_value=40),
)
def test_best_is_a_stable_sort(values, count):
    scores = np.array(values, dtype=np.float32)
    expected = sorted(range(len(values)), key=lambda at: (-values[at], at))[:count]
    assert best(scores, count).tolist() == expected


def test_odds_of_a_sigmoid_model_keep_scale_and_bias():
    odds = Odds(scale=10, bias=-2)
    assert not odds.is_softmax
    logits = odds.independent(np.array([0.5]), np.array([0.4]))
    assert logits.tolist() == pytest.approx([3.0])


def test_independent_odds_of_a_softmax_model_are_against_the_neutral_prompt():
    odds = Odds(scale=10, bias=None)
    logits = odds.independent(np.array([0.5, 0.3]), np.array([0.4]))
    assert logits.tolist() == pytest.approx([1.0, -1.0])


def test_a_calibration_changes_both():
    odds = Odds(scale=10, bias=None, temperature=2, slope=4, offset=-1)
    assert odds.factor == 5
    assert odds.independent(np.array([0.5]), np.array([0.4])).tolist() == pytest.approx([1.0])
