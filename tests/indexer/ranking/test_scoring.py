from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.categories.other_categories import log_mass
from indexer.ranking.ranking import Odds, best, sigmoid
from indexer.vectors.tail import softmax_weights


def test_softmax_and_sigmoid_by_hand():
    none = np.empty(0, dtype=np.float32)
    seen = np.array([0.0, math.log(3)], dtype=np.float32)
    assert softmax_weights(seen, none, 1, 1).tolist() == pytest.approx([0.25, 0.75])
    # One that was seen, and one that stands for three more like it.
    unseen = np.zeros(1, dtype=np.float32)
    assert softmax_weights(unseen, unseen, 3, 1).tolist() == pytest.approx([0.25, 0.75])
    assert sigmoid(np.array([0.0, math.log(3), -1000, 1000])).tolist() == pytest.approx(
        [0.5, 0.75, 0, 1]
    )


def test_a_million_small_terms_are_not_lost():
    scores = np.zeros(1_000_001, dtype=np.float32)
    scores[0] = 1
    none = np.empty(0, dtype=np.float32)
    shares = softmax_weights(scores, none, 1, math.log(1_000_000))
    assert shares[0] == pytest.approx(0.5, abs=1e-9)


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
    assert odds.independent(np.array([0.5]), np.array([0.9]), 7).tolist() == pytest.approx([3.0])


def test_independent_odds_of_a_softmax_model_are_against_other_categories():
    odds = Odds(scale=10, bias=None)
    others = np.array([0.1, 0.3])  # mean 0.2, deviation 0.1
    logits = odds.independent(np.array([0.5, 0.2]), others, 4)
    against = 2 + 0.5 + math.log(4)
    assert logits.tolist() == pytest.approx([5 - against, 2 - against])


def test_the_mass_of_other_categories_is_that_of_normal_cosines():
    chance = np.random.default_rng(0)
    scores = chance.normal(0.1, 0.05, 200_000)
    assert log_mass(scores, 30, 200_000) == pytest.approx(
        np.log(np.exp(30 * scores).sum()), abs=0.01
    )


def test_a_calibration_changes_both():
    odds = Odds(scale=10, bias=-2, temperature=2, slope=4, offset=-1)
    assert odds.factor == 5
    assert odds.independent(np.array([0.5]), np.array([]), 0).tolist() == pytest.approx([11.0])
