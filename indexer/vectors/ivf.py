"""Vectors in inverted lists: a query is compared with those in the nearest lists only.

How many lists that are depends on how near the query is: one that resembles some category finds
its best matches in few lists, one that resembles none has them scattered (docs/indexing.md has the
measurements).

Source: Jegou, Douze, Schmid, Product Quantization for Nearest Neighbor Search, 2011, section IV
(inverted file); the lists' centres come from spherical k-means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from indexer.vectors.flat import inner_products
from indexer.vectors.layout import Plan, Reach
from models.encoder import Vectors

faiss: Any = _faiss  # its type stubs lack half of what is used here

Rows = NDArray[np.int64]
Report = Callable[[int, int], None]

_ROUNDS = 10  # of k-means
_ROWS_PER_LIST = 64  # that k-means looks at
_ADDED_AT_ONCE = 65536  # vectors between two reports
_LEAST_SCORE = -1e30  # below every cosine: keep all that the lists hold
_NO_LIST = -1
_TYPES = {"fp16": faiss.ScalarQuantizer.QT_fp16, "sq8": faiss.ScalarQuantizer.QT_8bit}


@dataclass(frozen=True)
class Probe:
    """What lies in the lists nearest to one query.

    rows: int64 [H] in no particular order; scores: their cosines, float32 [H]
    lists: the lists looked into, int64 [P]
    """

    rows: Rows
    scores: Vectors
    lists: Rows


@dataclass(frozen=True)
class NearLists:
    """The nearest lists of N queries, as many as each needs: int64 and float32 [N, P].

    Rows are padded with -1, which FAISS skips.
    """

    lists: Rows
    cosines: Vectors


class IvfVectors:
    """A trained and filled inverted file; never changes, whatever is asked of it.

    index: a faiss.IndexIVFScalarQuantizer
    reaches: how many lists to look into, nearest queries first; empty: all of them
    """

    def __init__(self, index: Any, reaches: Sequence[Reach] = ()) -> None:
        index.make_direct_map()  # where each row is; made once, before anyone searches
        self.index = index
        self._centres: Vectors = index.quantizer.reconstruct_n(0, index.nlist)
        # A query farther than all that were tuned on gets what the farthest of those need.
        self._cosines = np.array([reach.cosine for reach in reaches[:-1]], dtype=np.float32)
        self._probes = np.array([reach.probes for reach in reaches] or [index.nlist])
        self._sure = np.array([reach.probability_probes for reach in reaches] or [index.nlist])

    @classmethod
    def of(cls, vectors: Vectors, plan: Plan, *, on_progress: Report | None = None) -> IvfVectors:
        """Find the lists' centres, then fill the lists.

        vectors: float32 [rows, D], rows of unit norm
        on_progress: called with steps done and steps in all
        """
        rows, dim = vectors.shape
        chunks = -(-rows // _ADDED_AT_ONCE)
        steps = _ROUNDS + chunks
        report = on_progress or (lambda done, total: None)
        sample = vectors[_sample(rows, _ROWS_PER_LIST * plan.lists)]
        quantizer = faiss.IndexFlatIP(dim)
        quantizer.add(_centres(sample, plan.lists, lambda done: report(done, steps)))
        index = faiss.IndexIVFScalarQuantizer(
            quantizer, dim, plan.lists, _TYPES[plan.storage], faiss.METRIC_INNER_PRODUCT, True
        )
        index.train(sample)  # the centres are there already; this fits the scalar quantiser
        for chunk in range(chunks):
            index.add(vectors[chunk * _ADDED_AT_ONCE : (chunk + 1) * _ADDED_AT_ONCE])
            report(_ROUNDS + chunk + 1, steps)
        return cls(index)

    def reaching(self, reaches: Sequence[Reach]) -> IvfVectors:
        """The same vectors, with other numbers of lists to look into."""
        return IvfVectors(self.index, reaches)

    def __len__(self) -> int:
        return int(self.index.ntotal)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.index.d)

    @property
    def lists(self) -> int:
        """How many lists there are."""
        return len(self._centres)

    def near(
        self,
        queries: Vectors,
        *,
        for_probability: bool = False,
        factor: int = 1,
        probes: int | None = None,
    ) -> NearLists:
        """The lists to look into: float32 [N, D] -> [N, P].

        for_probability: as many as probabilities need, which is more than finding the best does
        factor: look into this many times as many
        probes: a fixed number for every query, instead of what was tuned
        """
        cosines = inner_products(queries, self._centres)
        if probes is None:
            nearest = cosines.max(axis=1)
            reach = (nearest[:, None] < self._cosines).sum(axis=1)
            wanted = factor * (self._sure if for_probability else self._probes)[reach]
        else:
            wanted = np.full(len(queries), probes)
        wanted = np.minimum(wanted, self.lists)
        widest = int(wanted.max(initial=1))
        lists = np.argpartition(-cosines, widest - 1, axis=1)[:, :widest]
        near = np.take_along_axis(cosines, lists, axis=1)
        order = np.argsort(-near, axis=1)
        lists = np.take_along_axis(lists, order, axis=1)
        lists[np.arange(widest) >= wanted[:, None]] = _NO_LIST
        return NearLists(lists, np.take_along_axis(near, order, axis=1))

    def nearest_centre(self, queries: Vectors) -> Vectors:
        """Cosine of each query with its nearest centre: float32 [N]."""
        cosines: Vectors = inner_products(queries, self._centres).max(axis=1)
        return cosines

    def probe(self, queries: Vectors, near: NearLists) -> list[Probe]:
        """All that is in those lists: float32 [N, D] -> N probes."""
        queries = np.ascontiguousarray(queries)
        found = faiss.RangeSearchResult(len(queries))
        # The Python wrapper takes the number of probes from the shared index; parameters that are
        # this call's own have to go to the C++ method.
        self.index.range_search_preassigned_c(
            len(queries),
            faiss.swig_ptr(queries),
            _LEAST_SCORE,
            faiss.swig_ptr(near.lists),
            faiss.swig_ptr(near.cosines),
            found,
            False,
            faiss.SearchParametersIVF(nprobe=near.lists.shape[1]),
        )
        ends = faiss.rev_swig_ptr(found.lims, len(queries) + 1).astype(np.int64)
        scores = faiss.rev_swig_ptr(found.distances, int(ends[-1])).copy()
        rows = faiss.rev_swig_ptr(found.labels, int(ends[-1])).copy()
        return [
            Probe(rows[start:end], scores[start:end], lists[lists != _NO_LIST])
            for lists, (start, end) in zip(near.lists, pairwise(ends), strict=True)
        ]

    def search(self, queries: Vectors, count: int, near: NearLists) -> tuple[Vectors, Rows]:
        """The best `count` in those lists: cosines, float32 [N, count], and rows, int64.

        Where the lists hold fewer, the row is -1.
        """
        queries = np.ascontiguousarray(queries)
        scores = np.empty((len(queries), count), dtype=np.float32)
        rows = np.empty((len(queries), count), dtype=np.int64)
        self.index.search_preassigned_c(
            len(queries),
            faiss.swig_ptr(queries),
            count,
            faiss.swig_ptr(near.lists),
            faiss.swig_ptr(near.cosines),
            faiss.swig_ptr(scores),
            faiss.swig_ptr(rows),
            False,
            faiss.SearchParametersIVF(nprobe=near.lists.shape[1]),
        )
        return scores, rows

    def take(self, rows: Rows) -> Vectors:
        """The vectors of these rows as they are kept: float32 [len(rows), D]."""
        taken: Vectors = self.index.reconstruct_batch(np.ascontiguousarray(rows))
        return taken

    def order(self) -> tuple[Rows, Rows]:
        """All rows list by list, and where each list starts: int64 [rows], int64 [lists + 1]."""
        sizes = [self.index.invlists.list_size(number) for number in range(self.lists)]
        starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        rows = np.empty(len(self), dtype=np.int64)
        for number, size in enumerate(sizes):
            if size:
                rows[starts[number] : starts[number + 1]] = _ids(self.index, number, size)
        return rows, starts

    def changed(
        self, keep: NDArray[np.bool_], added: Vectors, reaches: Sequence[Reach]
    ) -> IvfVectors:
        """The rows that `keep` (bool [rows]) marks, in their order, then the added ones.

        The lists' centres stay, so nothing is trained or encoded again.
        """
        index = faiss.clone_index(self.index)
        index.set_direct_map_type(faiss.DirectMap.NoMap)
        index.remove_ids(faiss.IDSelectorBatch(np.flatnonzero(~keep)))
        renumbered = np.cumsum(keep, dtype=np.int64) - 1
        for number in range(self.lists):
            if size := index.invlists.list_size(number):
                ids = _ids(index, number, size)
                ids[:] = renumbered[ids]
        index.add(np.ascontiguousarray(added))
        return IvfVectors(index, reaches)


def _ids(index: Any, number: int, size: int) -> Rows:
    """The row numbers in one list: FAISS's own memory, int64 [size]."""
    ids: Rows = faiss.rev_swig_ptr(index.invlists.get_ids(number), size)
    return ids


def _centres(sample: Vectors, count: int, report: Callable[[int], None]) -> Vectors:
    """Spherical k-means: float32 [S, D] -> float32 [count, D], rows of unit norm."""
    dim = sample.shape[1]
    parameters = faiss.ClusteringParameters()
    parameters.niter = 1
    parameters.spherical = True
    parameters.min_points_per_centroid = 1
    parameters.max_points_per_centroid = len(sample)
    # One round at a time, each from the last one's centres, so that progress can be told.
    clustering = faiss.Clustering(dim, count, parameters)
    for done in range(_ROUNDS):
        clustering.train(sample, faiss.IndexFlatIP(dim))
        report(done + 1)
    centres: Vectors = faiss.vector_to_array(clustering.centroids).reshape(count, dim)
    return centres


def _sample(rows: int, count: int) -> Rows:
    """`count` different rows, always the same ones, or all."""
    if count >= rows:
        return np.arange(rows)
    chosen: Rows = np.random.default_rng(0).choice(rows, count, replace=False)
    return np.sort(chosen)
