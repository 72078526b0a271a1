"""Cosines from outside in the place of an index's own, in one ranking with the others."""

from __future__ import annotations

import numpy as np
import pytest

from indexer import CategoryIndex, LayoutOptions
from indexer.ranking.calibration import Calibration
from indexer.ranking.ranking import Replaced
from tests.indexer.clustered import moved, unit
from tests.indexer.fakes import HashEncoder

LABELS = [f"label {number}" for number in range(40)]


def all_of(index: CategoryIndex, queries, replaced: Replaced | None, **more):
    """For each query: label -> match."""
    rankings = index.rank(queries, len(index), replaced=replaced, **more)
    return [{match.label: match for match in ranking.matches} for ranking in rankings]


def softmax(logits):
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


@pytest.mark.parametrize(
    "encoder", [HashEncoder(), HashEncoder(logit_bias=-4.0)], ids=["softmax", "sigmoid"]
)
def test_one_probability_over_tuned_and_others(encoder):
    index = CategoryIndex.build(LABELS, encoder, templates="plain")
    queries = moved(encoder.encode_texts(LABELS[:3]), 0.8)
    before = all_of(index, queries, None)
    scores = np.array([[0.9, -0.2], [0.1, 0.95], [0.3, 0.3]], dtype=np.float32)
    replaced = Replaced(np.array([30, 7]), scores)
    after = all_of(index, queries, replaced)
    for query in range(3):
        cosines = np.array([before[query][label].score for label in LABELS])
        cosines[[30, 7]] = scores[query]
        found = np.array([after[query][label].score for label in LABELS])
        assert found == pytest.approx(cosines, abs=1e-6)
        shares = np.array([after[query][label].probability for label in LABELS])
        if encoder.logit_bias is None:
            assert shares == pytest.approx(softmax(20.0 * cosines), abs=1e-6)
        else:
            assert shares == pytest.approx(1 / (1 + np.exp(4 - 20.0 * cosines)), abs=1e-6)
    best = [ranking.matches[0].label for ranking in index.rank(queries, 1, replaced=replaced)]
    assert best[:2] == ["label 30", "label 7"]


def test_equals_rank_in_order_of_position():
    encoder = HashEncoder()
    index = CategoryIndex.build(LABELS, encoder, templates="plain")
    scores = np.full((1, 3), 0.99, dtype=np.float32)
    replaced = Replaced(np.array([20, 3, 11]), scores)
    [ranking] = index.rank(encoder.encode_texts(["x"]), 3, replaced=replaced)
    assert [match.label for match in ranking.matches] == ["label 3", "label 11", "label 20"]


def test_the_calibration_is_left_out_because_it_was_fitted_without_them():
    encoder = HashEncoder()
    index = CategoryIndex.build(LABELS, encoder, templates="plain")
    calibration = Calibration(
        temperature=3.0,
        slope=1.0,
        offset=0.0,
        thresholds=(),
        images=10,
        labels=40,
        categories=40,
        ece_before=0.1,
        ece_after=0.1,
        created="2026-11-21",
    )
    queries = encoder.encode_texts(LABELS[:2])
    own = np.array([[0.5], [0.5]], dtype=np.float32)
    replaced = Replaced(np.array([0]), own)
    calibrated = index.calibrated(calibration)
    assert all_of(calibrated, queries, None) != all_of(index, queries, None)
    assert all_of(calibrated, queries, replaced) == all_of(index, queries, replaced)


def test_in_an_index_of_lists_they_count_once_wherever_they_lie():
    encoder = HashEncoder(dim=16, logit_scale=30.0)
    labels = [f"label {number}" for number in range(5000)]
    index = CategoryIndex.build(
        labels, encoder, templates="plain", options=LayoutOptions(exact_up_to=0, recall=1)
    )
    assert index.manifest.layout.type == "ivf"
    queries = unit(encoder.encode_texts(labels[:4]) + 0.2)
    flat = CategoryIndex.build(labels, encoder, templates="plain")
    assert flat.manifest.layout.type == "flat"
    positions = np.arange(0, 5000, 50)
    scores = np.random.default_rng(0).uniform(-0.2, 0.95, (4, len(positions))).astype(np.float32)
    replaced = Replaced(positions, scores)
    for near, exact in zip(
        index.rank(queries, 200, replaced=replaced),
        flat.rank(queries, 200, replaced=replaced),
        strict=True,
    ):
        names = [match.label for match in near.matches]
        assert len(set(names)) == len(names)
        ours = {labels[at] for at in positions}
        best = [match for match in exact.matches if match.label in ours][:10]
        found = {match.label: match for match in near.matches}
        for match in best:
            assert found[match.label].score == pytest.approx(match.score, abs=1e-6)
            assert found[match.label].probability == pytest.approx(match.probability, abs=0.02)
