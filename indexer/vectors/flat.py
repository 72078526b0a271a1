"""Query vectors, checked before anything is computed with them."""

from __future__ import annotations

from typing import Any

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from indexer.errors import VectorError
from models.encoder import Vectors


def checked_queries(vectors: Vectors, dim: int, top_k: int) -> Vectors:
    """The vectors as contiguous float32 [N, dim].

    Raises: VectorError for another shape, values that aren't finite, or `top_k` below 1.
    """
    queries = np.ascontiguousarray(vectors, dtype=np.float32)
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise VectorError(
            f"query vectors must have the shape [N, {dim}], not {list(queries.shape)}",
            param="vectors",
        )
    if not np.isfinite(queries).all():
        raise VectorError("query vectors hold values that aren't finite", param="vectors")
    if top_k < 1:
        raise VectorError(f"top_k must be 1 or more, not {top_k}", param="top_k")
    return queries


# ---- Inner products of few queries with many vectors.


faiss: Any = _faiss  # its type stubs lack this function


# numpy hands even one query's products to a pool of threads, and where every core is busy (an
# image tower runs beside) waiting for them took 38 ms instead of the 0.12 ms of one thread.
_ONE_BY_ONE_UP_TO = 32


def inner_products(queries: Vectors, vectors: Vectors) -> Vectors:
    """float32 [N, D] and contiguous float32 [R, D] -> float32 [N, R]."""
    if len(queries) > _ONE_BY_ONE_UP_TO:
        return queries @ vectors.T
    rows, dim = vectors.shape
    products = np.empty((len(queries), rows), dtype=np.float32)
    for query, into in zip(np.ascontiguousarray(queries), products, strict=True):
        faiss.fvec_inner_products_ny(
            faiss.swig_ptr(into), faiss.swig_ptr(query), faiss.swig_ptr(vectors), dim, rows
        )
    return products


# ---- Vectors that are all compared with every query.


class FlatVectors:
    """float32 vectors in a FAISS inner-product index; never changes."""

    def __init__(self, index: faiss.IndexFlatIP) -> None:
        self.index = index
        # FAISS's own memory, not another copy; it lives as long as the index does.
        flat = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
        self._rows: Vectors = flat.reshape(index.ntotal, index.d)

    @classmethod
    def of(cls, vectors: Vectors) -> FlatVectors:
        """vectors: float32 [rows, D], rows of unit norm."""
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors))
        return cls(index)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.index.d)

    def scores(self, queries: Vectors) -> Vectors:
        """Cosines with every vector: float32 [N, D] -> float32 [N, rows]."""
        return inner_products(queries, self._rows)

    def take(self, rows: NDArray[np.int64]) -> Vectors:
        """The vectors of these rows: float32 [len(rows), D]."""
        return self._rows[rows]

    def changed(self, keep: NDArray[np.bool_], added: Vectors) -> FlatVectors:
        """The rows that `keep` (bool [rows]) marks, in their order, then the added ones."""
        return FlatVectors.of(np.concatenate([self._rows[keep], added]))
