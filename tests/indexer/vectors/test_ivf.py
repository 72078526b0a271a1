from __future__ import annotations

import threading

import numpy as np
import pytest

from indexer.vectors.ivf import IvfVectors
from indexer.vectors.layout import Plan, Reach
from tests.indexer.clustered import clustered, moved

ROWS, DIM, LISTS = 4000, 24, 32


@pytest.fixture(scope="module")
def vectors():
    return clustered(ROWS, DIM)


@pytest.fixture(scope="module")
def index(vectors):
    return IvfVectors.of(vectors, Plan("ivf", "fp16", LISTS))


def test_looking_into_all_lists_is_exact(index, vectors):
    queries = moved(vectors[:20], 0.5)
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :5]
    scores, rows = index.search(queries, 5, index.near(queries, probes=LISTS))
    assert (rows == exact).mean() > 0.97  # fp16 may swap near equals
    assert np.allclose(scores, np.take_along_axis(queries @ vectors.T, rows, axis=1), atol=1e-3)


def test_a_probe_holds_all_of_its_lists_and_nothing_else(index, vectors):
    order, starts = index.order()
    assert sorted(order) == list(range(ROWS))
    query = vectors[7:8]
    near = index.near(query, probes=3)
    probe = index.probe(query, near)[0]
    held = np.concatenate([order[starts[n] : starts[n + 1]] for n in near.lists[0]])
    assert sorted(probe.rows) == sorted(held)
    assert probe.lists.tolist() == near.lists[0].tolist()
    assert np.allclose(probe.scores, vectors[probe.rows] @ query[0], atol=1e-3)


def test_farther_queries_get_more_lists(index, vectors):
    tuned = index.reaching([Reach(0.8, 2, 4), Reach(0.5, 8, 16), Reach(0.1, 20, 40)])
    queries = np.concatenate([index._centres[:1], -index._centres[:1]])  # cosines 1 and below 0.1
    near = tuned.near(queries)
    assert (near.lists[0] >= 0).sum() == 2
    assert (near.lists[1] >= 0).sum() == 20
    assert (tuned.near(queries, for_probability=True).lists[0] >= 0).sum() == 4
    assert (tuned.near(queries, for_probability=True).lists[1] >= 0).sum() == LISTS
    # Each query of a batch finds what it finds alone.
    alone = [tuned.search(query[None], 3, tuned.near(query[None]))[1][0] for query in queries]
    assert tuned.search(queries, 3, near)[1].tolist() == np.stack(alone).tolist()


def test_fewer_found_than_asked_for_are_marked(vectors):
    small = IvfVectors.of(vectors[:100], Plan("ivf", "fp16", 2))
    _, rows = small.search(vectors[:1], 200, small.near(vectors[:1]))
    assert (rows[0] >= 0).sum() == 100


def test_a_change_keeps_the_order_and_leaves_the_old_one_alone(index, vectors):
    keep = np.ones(ROWS, dtype=np.bool_)
    keep[[0, 5, ROWS - 1]] = False
    added = moved(vectors[:10], 0.3)
    changed = index.changed(keep, added, [])
    expected = np.concatenate([vectors[keep], added])
    assert np.allclose(changed.take(np.arange(len(changed))), expected, atol=1e-3)
    _, rows = changed.search(added, 1, changed.near(added))
    assert rows[:, 0].tolist() == list(range(ROWS - 3, ROWS + 7))
    assert len(index) == ROWS
    assert np.allclose(index.take(np.arange(ROWS)), vectors, atol=1e-3)


def test_all_removed_from_a_list_and_nothing_added(index):
    order, starts = index.order()
    keep = np.ones(ROWS, dtype=np.bool_)
    keep[order[starts[3] : starts[4]]] = False
    changed = index.changed(keep, np.empty((0, DIM), dtype=np.float32), [])
    assert len(changed) == keep.sum()
    assert sorted(changed.order()[0]) == list(range(len(changed)))


def test_quantised_to_bytes(vectors):
    index = IvfVectors.of(vectors, Plan("ivf", "sq8", LISTS))
    off = np.abs(index.take(np.arange(ROWS)) - vectors)
    assert 0 < off.mean() < 0.002  # 1/255 of each number's range, here about 0.6, is 0.0024


def test_building_twice_gives_the_same_index(vectors, index):
    again = IvfVectors.of(vectors, Plan("ivf", "fp16", LISTS))
    assert again.order()[0].tolist() == index.order()[0].tolist()


def test_progress_counts_up_to_the_total(vectors):
    seen = []
    IvfVectors.of(vectors, Plan("ivf", "fp16", 8), on_progress=lambda *step: seen.append(step))
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert {total for _, total in seen} == {len(seen)}


def test_threads_with_different_numbers_of_lists_do_not_disturb_each_other(index, vectors):
    queries = moved(vectors[:50], 1.0)
    expected = {n: index.search(queries, 5, index.near(queries, probes=n))[1] for n in (1, 4, 16)}
    wrong = []

    def ask(probes):
        for _ in range(30):
            _, rows = index.search(queries, 5, index.near(queries, probes=probes))
            if not (rows == expected[probes]).all():
                wrong.append(probes)

    threads = [threading.Thread(target=ask, args=(n,)) for n in (1, 4, 16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
