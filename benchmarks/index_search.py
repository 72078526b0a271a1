"""Large category indexes beside an exact scan of the same vectors, in the same run.

    python -m benchmarks.index_search [--sizes 10000,100000,1000000] [--dim 512]

The vectors are made here, shaped like embeddings of texts: a common direction, clusters of uneven
size, variances that fall off from dimension to dimension. Queries are vectors of the index moved
away at random, to a cosine of 0.94 ("near") and 0.71 ("far"). One query at a time, one thread; the
exact scan and the index take turns, so that whatever else the machine does hits both.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence

import faiss
import numpy as np

from indexer import CategoryIndex, LayoutOptions
from indexer.vectors.ivf import IvfVectors
from models.encoder import Vectors

STEPS = {"near": 0.35, "far": 1.0}
QUERIES = 200
TIMED = 60
BEST = 10
SCALE = 100.0


def text_like(rows: int, dim: int, *, seed: int = 0) -> Vectors:
    """float32 [rows, dim], rows of unit norm."""
    chance = np.random.default_rng(seed)
    spread = (1 + np.arange(dim)) ** -0.5
    spread /= np.linalg.norm(spread)
    common = chance.standard_normal(dim)
    common *= 1.2 / np.linalg.norm(common)
    turned = np.linalg.qr(chance.standard_normal((dim, dim)))[0].astype(np.float32)
    topics = chance.standard_normal((max(16, int(rows**0.5) // 4), dim)) * spread
    clusters = max(64, rows // 50)
    own = chance.standard_normal((clusters, dim)) * spread
    centres = 0.7 * topics[chance.integers(len(topics), size=clusters)] + 0.7 * own
    shares = (1 + np.arange(clusters)) ** -0.5
    shares /= shares.sum()
    vectors = np.empty((rows, dim), dtype=np.float32)
    for start in range(0, rows, 65536):
        part = vectors[start : start + 65536]
        noise = chance.standard_normal(part.shape, dtype=np.float32) * spread
        part[:] = (
            common + (centres[chance.choice(clusters, len(part), p=shares)] + 0.5 * noise) @ turned
        )
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


class Lookup:
    """An encoder of the labels "0", "1", ...: text n is row n."""

    model_id, backend, device, precision = "made-up", "none", "cpu", "fp32"
    image_size, context_length = (1, 1), 77
    logit_scale, logit_bias, fingerprint = SCALE, None, "0" * 64

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors
        self.dim = vectors.shape[1]

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        return self._vectors[[int(text) for text in texts]]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [3 for _ in texts]

    def unknown_words(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        return [() for _ in texts]


def moved(vectors: Vectors, step: float, *, seed: int) -> Vectors:
    chance = np.random.default_rng(seed)
    began = vectors[chance.choice(len(vectors), QUERIES, replace=False)]
    away = chance.standard_normal(began.shape, dtype=np.float32)
    queries = began + np.float32(step) * away / np.linalg.norm(away, axis=1, keepdims=True)
    return queries / np.linalg.norm(queries, axis=1, keepdims=True)


def take_turns(queries: Vectors, *contenders: Callable[[Vectors], object]) -> list[float]:
    """Median milliseconds of each for one query."""
    times: list[list[float]] = [[] for _ in contenders]
    for number in range(TIMED + 3):
        for ask, taken in zip(contenders, times, strict=True):
            began = time.perf_counter()
            ask(queries[number : number + 1])
            taken.append(time.perf_counter() - began)
    return [float(np.median(taken[3:])) * 1000 for taken in times]


def run(rows: int, dim: int) -> None:
    vectors = text_like(rows, dim)
    began = time.perf_counter()
    # Lists at every size, also where clipdex itself would still compare every vector.
    index = CategoryIndex.build(
        [str(row) for row in range(rows)],
        Lookup(vectors),
        templates="plain",
        options=LayoutOptions(exact_up_to=0),
    )
    built = time.perf_counter() - began
    layout, held = index.manifest.layout, index._vectors
    assert isinstance(held, IvfVectors)
    flat = faiss.IndexFlatIP(dim)
    flat.add(vectors)
    print(
        f"\n{rows:,} x {dim}: {layout.lists:,} lists, {layout.storage}, "
        f"{layout.bytes_per_vector:,.0f} bytes a vector (exact: {4 * dim:,}), "
        f"built in {built:,.0f} s, of which lists and tuning {layout.build_seconds:,.0f} s; "
        f"load {os.getloadavg()[0]:.1f}"
    )
    for kind, step in STEPS.items():
        queries = moved(vectors, step, seed=7)
        scores, best = flat.search(queries, BEST)
        _, found = held.search(queries, BEST, held.near(queries))
        recall = (found[:, :, None] == best[:, None, :]).any(axis=2).mean()
        # float64 sums block by block: the exact probability of the best match
        total = np.zeros(len(queries))
        for start in range(0, rows, 65536):
            cosines = queries @ vectors[start : start + 65536].T
            total += np.exp(SCALE * (cosines - scores[:, :1])).sum(axis=1, dtype=np.float64)
        told = np.array([line[0].probability for line in index.search(queries, 1)])
        exact_ms, index_ms, answer_ms = take_turns(
            queries,
            lambda query: flat.search(query, BEST),
            lambda query: held.search(query, BEST, held.near(query)),
            lambda query: index.search(query, BEST),
        )
        print(
            f"  {kind:5} recall@10 {recall:.4f}  exact {exact_ms:8.3f} ms  "
            f"index {index_ms:7.3f} ms ({exact_ms / index_ms:6.1f}x)  with probabilities "
            f"{answer_ms:7.3f} ms ({exact_ms / answer_ms:6.1f}x)  "
            f"worst probability error {np.abs(told - 1 / total).max():.4f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--dim", type=int, default=512)
    asked = parser.parse_args()
    for size in asked.sizes.split(","):
        faiss.omp_set_num_threads(os.cpu_count() or 1)
        run(int(size), asked.dim)


if __name__ == "__main__":
    main()
