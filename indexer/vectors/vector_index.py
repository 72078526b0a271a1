"""From vectors to the index that their number calls for, and back from a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from indexer.errors import BrokenIndexError
from indexer.vectors.embedding import OnProgress, Progress
from indexer.vectors.flat import FlatVectors, inner_products
from indexer.vectors.ivf import IvfVectors
from indexer.vectors.layout import Layout, LayoutOptions, ivf_bytes, plan_layout
from indexer.vectors.tail import Tail
from indexer.vectors.tuning import choose_reaches, held_out, measure, median_ms
from models.encoder import Vectors

_TIMED = 11  # queries whose time is taken
# A number of vectors this many times that of the training calls for other lists.
_GROWTH = 1.5


def lay_out(
    vectors: Vectors,
    options: LayoutOptions,
    *,
    scale: float | None,
    images: Vectors | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[FlatVectors | IvfVectors, Layout]:
    """Build what `plan_layout` plans for float32 [rows, D], and tune it.

    scale: factor of the softmax that follows, None if there is none
    images: embeddings of images like those that will be asked about, float32 [M, D]
    Raises: LayoutError if the memory allowed is too little.
    """
    rows, dim = vectors.shape
    plan = plan_layout(rows, dim, options)
    began = time.perf_counter()
    if plan.type == "flat":
        flat = FlatVectors.of(vectors)
        return flat, _flat_layout(flat, time.perf_counter() - began)
    bare = IvfVectors.of(vectors, plan, on_progress=_stage(on_progress, "indexing"))
    kinds = held_out(vectors, scale, images, on_progress=_stage(on_progress, "tuning"))
    tail = Tail(bare, np.arange(rows + 1))
    tuned_on, reported_on = zip(*(kind.parts() for kind in kinds), strict=True)
    reaches = choose_reaches(bare, tail, tuned_on, scale, options.recall)
    index = bare.reaching(reaches)
    asked = kinds[0].vectors[:_TIMED]
    return index, Layout(
        "ivf",
        plan.storage,
        bytes_per_vector=ivf_bytes(rows, dim, plan.storage, plan.lists),
        exact_query_ms=median_ms(lambda query: inner_products(query, vectors), asked),
        build_seconds=time.perf_counter() - began,
        lists=plan.lists,
        trained_on=rows,
        target_recall=options.recall,
        reaches=reaches,
        measured=measure(index, tail, reported_on, scale),
    )


def _flat_layout(vectors: FlatVectors, seconds: float) -> Layout:
    """The layout of an exact index: nothing to tune, everything is found."""
    asked = vectors.take(np.arange(min(_TIMED, len(vectors))))
    return Layout(
        "flat",
        "fp32",
        bytes_per_vector=4.0 * vectors.dim,
        exact_query_ms=median_ms(vectors.scores, asked),
        build_seconds=seconds,
    )


def change_vectors(
    vectors: FlatVectors | IvfVectors,
    layout: Layout,
    keep: NDArray[np.bool_],
    added: Vectors,
    options: LayoutOptions,
    *,
    scale: float | None,
    on_progress: OnProgress | None = None,
) -> tuple[FlatVectors | IvfVectors, Layout]:
    """The rows that `keep` (bool [rows]) marks, then the added ones, float32 [A, D].

    The layout stays while it suits the number of vectors; else all is laid out anew.
    Raises: LayoutError if the memory allowed is too little.
    """
    rows = int(keep.sum()) + len(added)
    plan = plan_layout(rows, vectors.dim, options)
    grown = rows / (layout.trained_on or rows)
    if plan.type != layout.type or not 1 / _GROWTH <= grown <= _GROWTH:
        every = np.concatenate([vectors.take(np.flatnonzero(keep)), added])
        return lay_out(every, options, scale=scale, on_progress=on_progress)
    if isinstance(vectors, FlatVectors):
        flat = vectors.changed(keep, added)
        return flat, _flat_layout(flat, layout.build_seconds)
    return vectors.changed(keep, added, layout.reaches), layout


def read_vectors(path: Path, layout: Layout) -> FlatVectors | IvfVectors:
    """The vectors in a FAISS file.

    Raises: BrokenIndexError if FAISS can't read it or it holds another type of index.
    """
    try:
        index = faiss.read_index(str(path))
    except RuntimeError as error:
        raise BrokenIndexError(f"{path} can't be read by FAISS") from error
    if layout.type == "flat" and isinstance(index, faiss.IndexFlatIP):
        return FlatVectors(index)
    if layout.type == "ivf" and isinstance(index, faiss.IndexIVFScalarQuantizer):
        return IvfVectors(index, layout.reaches)
    raise BrokenIndexError(f"{path} holds another type of index than its manifest says")


def write_vectors(vectors: FlatVectors | IvfVectors, path: Path) -> None:
    """Write a FAISS file; not synced."""
    faiss.write_index(vectors.index, str(path))


def _stage(on_progress: OnProgress | None, stage: str) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        if on_progress:
            on_progress(Progress(stage, done, total))

    return report
