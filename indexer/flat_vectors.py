"""Vectors that are all compared with every query."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.products import inner_products
from models.encoder import Vectors


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
