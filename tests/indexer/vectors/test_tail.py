from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.vectors.ivf import IvfVectors
from indexer.vectors.layout import LayoutOptions, Plan
from indexer.vectors.tail import Tail, softmax_weights
from indexer.vectors.vector_index import lay_out
from tests.indexer.clustered import clustered, moved

ROWS, DIM = 100_000, 128
SCALE = 100.0


@pytest.fixture(scope="module")
def vectors():
    return clustered(ROWS, DIM)


@pytest.fixture(scope="module")
def tuned(vectors):
    index, layout = lay_out(vectors, LayoutOptions(), scale=SCALE)
    assert isinstance(index, IvfVectors)
    return index, layout, Tail(index, np.arange(ROWS + 1))


def estimate(index, tail, query):
    probe = index.probe(query[None], index.near(query[None], for_probability=True))[0]
    unseen = tail.scores(query)[tail.outside(probe.lists)]
    return softmax_weights(probe.scores, unseen, tail.weight, SCALE)[: len(probe.rows)].max()


def exact(vectors, query):
    scores = (vectors @ query).astype(np.float64)
    return 1 / np.exp(SCALE * (scores - scores.max())).sum()


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(row=st.integers(0, ROWS - 1), step=st.floats(0.0, 1.2), seed=st.integers(0, 1000))
def test_at_100000_categories_the_top_probability_is_within_2_percent(
    vectors, tuned, row, step, seed
):
    index, _, tail = tuned
    query = moved(vectors[row : row + 1], step, seed=seed)[0]
    assert estimate(index, tail, query) == pytest.approx(exact(vectors, query), abs=0.02)


def test_a_softmax_over_what_was_found_would_claim_too_much(vectors, tuned):
    # What the estimate is for: without the tail, queries between the clusters look certain.
    index, _, _ = tuned
    queries = moved(vectors[:200], 0.35)
    gaps = []
    for query in queries:
        scores, _ = index.search(query[None], 10, index.near(query[None]))
        logits = 30 * scores[0].astype(np.float64)
        true = (vectors @ query).astype(np.float64)
        among_ten = 1 / np.exp(logits - logits[0]).sum()
        gaps.append(among_ten - 1 / np.exp(30 * (true - true.max())).sum())
    assert np.median(gaps) > 0.05


def test_what_the_layout_says_was_measured(tuned):
    _, layout, _ = tuned
    assert layout.type == "ivf"
    assert layout.lists == 1024
    assert [measured.kind for measured in layout.measured] == ["near", "far", "farther", "anywhere"]
    near, far = layout.measured[:2]
    assert near.recall_at_10 > 0.98
    assert far.recall_at_10 > 0.98
    assert near.probability_error < 0.02
    probes = [reach.probes for reach in layout.reaches]
    assert probes == sorted(probes)
    assert [reach.cosine for reach in layout.reaches] == sorted(
        (reach.cosine for reach in layout.reaches), reverse=True
    )


def test_every_category_is_counted_once():
    # With fewer categories than the sample holds, the estimate is exact, synonyms included.
    vectors = clustered(900, 16)
    starts = np.arange(0, 901, 3)  # three names each
    index = IvfVectors.of(vectors, Plan("ivf", "fp16", 16))
    tail = Tail(index, starts)
    assert tail.weight == 1
    query = vectors[5]
    best = np.maximum.reduceat(vectors @ query, starts[:-1])
    assert tail.outside(np.empty(0, dtype=np.int64)).all()
    assert sorted(tail.categories) == list(range(300))
    assert np.allclose(tail.scores(query)[np.argsort(tail.categories)], best, atol=1e-3)
    near = index.near(query[None], probes=4)
    seen = set(np.searchsorted(starts, index.probe(query[None], near)[0].rows, side="right") - 1)
    left = tail.categories[tail.outside(near.lists[0])]
    assert seen | set(left) == set(range(300))
    assert not seen & set(left)
