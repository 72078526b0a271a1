from __future__ import annotations

import numpy as np
import pytest

from indexer.vectors.flat import inner_products


@pytest.mark.parametrize("queries", [0, 1, 5, 32, 33, 100])
def test_few_and_many_queries_agree_with_numpy(queries):
    chance = np.random.default_rng(0)
    many = chance.standard_normal((70, 19), dtype=np.float32)
    few = chance.standard_normal((queries, 38), dtype=np.float32)[:, ::2]  # not contiguous
    assert np.allclose(inner_products(few, many), few @ many.T, atol=1e-5)
