from __future__ import annotations

import pytest

from indexer import Calibration, Match, Policy, PolicyError, Ranking, Threshold
from indexer.ranking.answer import answer, minimum

CAT = Match("cat", 0.3, 0.6, 1)
DOG = Match("dog", 0.2, 0.55, 2)
COW = Match("cow", 0.1, 0.1, 3)
NOTHING = Match("nothing", 0.4, 0.9, 1, background=True)


def ranking(*matches):
    return Ranking(matches, (), "exact")


def calibration(*thresholds):
    return Calibration(1.0, 1.0, 0.0, thresholds, 100, 10, 10, 0.2, 0.05, "2026-01-01")


def test_single_keeps_all_matches_and_judges_the_best():
    said = answer(ranking(CAT, DOG, COW), Policy(), None)
    assert (said.matches, said.unknown, said.reason) == ((CAT, DOG, COW), False, None)


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (Policy(min_probability=0.7), "probability below 0.7"),
        (Policy(min_score=0.31), "score below 0.31"),
    ],
)
def test_abstaining_says_why(policy, reason):
    said = answer(ranking(CAT, DOG), policy, None)
    assert said.unknown
    assert said.reason == reason


def test_a_background_category_that_wins_answers_unknown():
    said = answer(ranking(NOTHING, CAT), Policy(), None)
    assert said.unknown
    assert "background" in said.reason


def test_multi_keeps_every_category_that_passes():
    said = answer(ranking(NOTHING, CAT, DOG, COW), Policy(mode="multi"), None)
    assert [match.label for match in said.matches] == ["cat", "dog"]
    assert not said.unknown
    assert answer(ranking(COW), Policy(mode="multi"), None).unknown


def test_a_precision_takes_the_next_stricter_threshold():
    known = calibration(
        Threshold(0.8, 0.3, 0.9), Threshold(0.9, 0.5, 0.6), Threshold(0.99, None, 0)
    )
    assert minimum(Policy(precision=0.85), known) == 0.5
    assert minimum(Policy(precision=0.8), known) == 0.3
    assert minimum(Policy(precision=0.8, min_probability=0.4), known) == 0.4
    with pytest.raises(PolicyError, match=r"no threshold reached .* the best is 0\.9"):
        minimum(Policy(precision=0.95), known)


def test_a_precision_needs_a_calibration():
    with pytest.raises(PolicyError, match="isn't calibrated"):
        minimum(Policy(precision=0.9), None)


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "many"},
        {"min_probability": 1.1},
        {"min_score": -2},
        {"precision": 2},
        {"mode": "multi", "precision": 0.9},
    ],
)
def test_policies_that_make_no_sense(options):
    with pytest.raises(PolicyError):
        Policy(**options)
