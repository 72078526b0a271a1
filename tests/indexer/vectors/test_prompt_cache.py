from __future__ import annotations

import sqlite3
import threading

import numpy as np
import pytest

from indexer import PromptCache
from indexer.vectors.embedding import embed
from tests.indexer.fakes import HashEncoder

ROWS = [("a cat", "the cat"), ("a dog",), ("고양이",)]


def cached(tmp_path, **options):
    return PromptCache(tmp_path / "prompts.sqlite3", **options)


def test_what_was_put_comes_back_bit_for_bit(tmp_path):
    cache = cached(tmp_path)
    vectors = np.random.default_rng(0).standard_normal((3, 5), dtype=np.float32)
    cache.put("model", ROWS, vectors)
    found = cached(tmp_path).get("model", [*ROWS, ("a",)], 5)
    assert np.array_equal(np.stack(found[:3]), vectors)
    assert found[3] is None


def test_vectors_of_different_models_and_prompts_never_meet(tmp_path):
    cache = cached(tmp_path)
    cache.put("model", [("a", "b")], np.ones((1, 4), dtype=np.float32))
    assert cache.get("other", [("a", "b")], 4) == [None]
    assert cache.get("model", [("a b",), ("b", "a"), ("a",)], 4) == [None] * 3


def test_an_interrupted_build_goes_on(tmp_path):
    cache = cached(tmp_path)
    rows = [(f"label {number}",) for number in range(2000)]
    expected = embed(rows, HashEncoder())

    class Interrupted(Exception):
        pass

    def stop(progress):
        if progress.done >= 1000:
            raise Interrupted

    first = HashEncoder()
    with pytest.raises(Interrupted):
        embed(rows, first, cache=cache, on_progress=stop)
    second = HashEncoder()
    assert np.array_equal(embed(rows, second, cache=cache), expected)
    assert not set(first.encoded) & set(second.encoded)
    assert len(first.encoded) + len(second.encoded) == 2000


def test_a_damaged_vector_is_encoded_again(tmp_path):
    cache = cached(tmp_path)
    right = embed(ROWS, HashEncoder(), cache=cache)
    with sqlite3.connect(cache.path) as database:
        database.execute("UPDATE vectors SET vector = zeroblob(length(vector))")
    database.close()
    again = HashEncoder()
    assert np.array_equal(embed(ROWS, again, cache=cache), right)
    assert len(again.encoded) == 4


def test_a_damaged_file_is_thrown_away(tmp_path):
    cache = cached(tmp_path)
    cache.path.write_bytes(b"this is not a database" * 1000)
    assert cache.get("model", ROWS, 4) == [None] * 3
    cache.put("model", ROWS, np.ones((3, 4), dtype=np.float32))
    assert all(vector is not None for vector in cache.get("model", ROWS, 4))


def test_the_file_stays_within_its_bound(tmp_path):
    cache = cached(tmp_path, max_bytes=400_000)
    vectors = np.ones((50, 64), dtype=np.float32)
    for start in range(0, 5000, 50):
        cache.put("model", [(str(n),) for n in range(start, start + 50)], vectors)
    assert cache.path.stat().st_size < 600_000
    assert cache.get("model", [("4999",)], 64)[0] is not None
    assert cache.get("model", [("0",)], 64) == [None]


def test_many_threads_at_once(tmp_path):
    cache = cached(tmp_path)
    rows = [(str(number),) for number in range(300)]
    results = []

    def work():
        results.append(embed(rows, HashEncoder(), cache=cache))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = embed(rows, HashEncoder())
    assert len(results) == 6
    assert all(np.array_equal(result, expected) for result in results)
