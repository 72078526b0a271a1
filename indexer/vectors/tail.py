"""The mass of all the categories that an approximate search doesn't look at.

A softmax over what was found alone would claim far too much: with a million categories the tail
outweighs the head. Everything in the lists looked into is counted exactly; the rest is estimated
from a fixed sample of the categories, taken evenly along the lists (so each region of the space is
represented by its share), and only from those in lists not looked into.

Source: Cochran, Sampling Techniques, 1977, chapter 8 (systematic sampling), with each sampled
category standing for `weight` categories.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexer.vectors.flat import inner_products
from indexer.vectors.ivf import IvfVectors
from models.encoder import Vectors

_SAMPLED = 4096  # categories; at 100,000 this keeps the top probability's error below 2 %


class Tail:
    """A sample of an index's categories, with all their vectors.

    starts: first row of each category and the number of rows last, int64 [C + 1]
    categories: the sampled ones, int64 [S], each of which stands for `weight` categories
    """

    def __init__(self, vectors: IvfVectors, starts: NDArray[np.int64]) -> None:
        order, list_starts = vectors.order()
        list_of = np.empty(len(vectors), dtype=np.int64)
        list_of[order] = np.repeat(np.arange(vectors.lists), np.diff(list_starts))
        first_row = np.zeros(len(vectors), dtype=np.bool_)
        first_row[starts[:-1]] = True
        rows = order[first_row[order]]  # the categories' first rows, list by list
        count = min(_SAMPLED, len(rows))
        chosen = rows[((np.arange(count) + 0.5) * len(rows) / count).astype(np.int64)]
        self.categories: NDArray[np.int64] = np.searchsorted(starts, chosen, side="right") - 1
        self.weight = len(rows) / count
        sizes = np.diff(starts)[self.categories]
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        every = np.repeat(chosen - self._starts, sizes) + np.arange(sizes.sum())
        self._vectors = vectors.take(every)
        self._list_of = list_of[every]
        self._lists = vectors.lists

    def scores(self, query: Vectors) -> Vectors:
        """Best cosine of each sampled category: float32 [D] -> float32 [S]."""
        products = inner_products(query[None], self._vectors)[0]
        best: Vectors = np.maximum.reduceat(products, self._starts)
        return best

    def outside(self, lists: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which sampled categories have none of their vectors in these lists: bool [S]."""
        looked_into = np.zeros(self._lists, dtype=np.bool_)
        looked_into[lists] = True
        seen: NDArray[np.bool_] = np.logical_or.reduceat(looked_into[self._list_of], self._starts)
        return ~seen


def softmax_weights(
    seen: Vectors, unseen: Vectors, weight: float, scale: float
) -> NDArray[np.float64]:
    """Shares of the whole mass: the seen ones' each, then what each unseen one stands for.

    seen, unseen: cosines, float32 [H] and [U]; returns float64 [H + U], which adds up to one.
    """
    logits = scale * np.concatenate([seen, unseen]).astype(np.float64)
    shares: NDArray[np.float64] = np.exp(logits - logits.max())
    shares[len(seen) :] *= weight
    shares /= shares.sum()
    return shares


def top_probability(seen: Vectors, unseen: Vectors, weight: float, scale: float) -> float:
    """The share of the best of the seen."""
    return float(softmax_weights(seen, unseen, weight, scale)[: len(seen)].max())
