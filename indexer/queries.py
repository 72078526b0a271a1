"""Query vectors, checked before anything is computed with them."""

from __future__ import annotations

import numpy as np

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
