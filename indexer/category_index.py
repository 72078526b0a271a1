"""A category database: build it from words, search it with image vectors, keep it on disk."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path

import faiss
import numpy as np

from indexer.category import Category, as_categories
from indexer.category_table import CategoryTable
from indexer.durable import publish_folder, sync_file
from indexer.embedding import OnProgress, check_lengths, embed, row_prompts
from indexer.errors import BrokenIndexError, ConflictError, VectorError, WrongModelError
from indexer.manifest import (
    Manifest,
    ModelRecord,
    read_manifest,
    record_file,
    verify_files,
    write_manifest,
)
from indexer.match import GroupMatch, Match, ProbabilityKind, Ranking
from indexer.scoring import best, sigmoid, softmax
from indexer.templates import resolve_templates
from models.encoder import Encoder, Vectors

_VECTORS = "index.faiss"
_CATEGORIES = "categories.parquet"
_SCORES_AT_ONCE = 1 << 24  # floats of one block of scores: 64 MB


class CategoryIndex:
    """Categories, their vectors and how to compare them. Never changes: a change is a new index.

    Safe to search from many threads at once.
    """

    def __init__(
        self, table: CategoryTable, vectors: faiss.IndexFlatIP, manifest: Manifest
    ) -> None:
        self._table = table
        self._vectors = vectors
        self.manifest = manifest

    @classmethod
    def build(
        cls,
        categories: Iterable[str | Category],
        encoder: Encoder,
        *,
        templates: str | Sequence[str] = "pictogram",
        on_progress: OnProgress | None = None,
    ) -> CategoryIndex:
        """Encode the categories' prompts and index their vectors.

        templates: a set's name (see `TEMPLATE_SETS`) or sentences with `{}` for the label
        Raises: CategoryError, TemplateError, PromptTooLongError.
        """
        listed = as_categories(categories)
        resolved = resolve_templates(templates)
        rows = list(row_prompts(listed, resolved))
        check_lengths(rows, encoder, on_progress=on_progress)
        vectors = embed(rows, encoder, on_progress=on_progress)
        index = faiss.IndexFlatIP(encoder.dim)
        index.add(vectors)
        manifest = Manifest(
            kind="categories",
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            count=len(listed),
            rows=len(rows),
            dim=encoder.dim,
            model=ModelRecord(
                id=encoder.model_id,
                fingerprint=encoder.fingerprint,
                logit_scale=encoder.logit_scale,
                logit_bias=encoder.logit_bias,
            ),
            templates={"name": resolved.name, "texts": list(resolved.texts)},
            layout={"type": "flat"},
            calibration=None,
            files={},
        )
        return cls(CategoryTable.of(listed), index, manifest)

    @classmethod
    def load(cls, folder: str | Path, *, fingerprint: str | None = None) -> CategoryIndex:
        """Read an index that `save` wrote; every file's checksum is verified.

        fingerprint: of the encoder that will make the query vectors
        Raises: BrokenIndexError naming the file at fault; WrongModelError.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        if manifest.kind != "categories":
            raise BrokenIndexError(f"{folder} holds an index of {manifest.kind}, not of categories")
        if fingerprint is not None:
            _check_fingerprint(manifest, fingerprint, str(folder))
        verify_files(folder, manifest)
        table = CategoryTable.read(folder / _CATEGORIES)
        try:
            vectors = faiss.read_index(str(folder / _VECTORS))
        except RuntimeError as error:
            raise BrokenIndexError(f"{folder / _VECTORS} can't be read by FAISS") from error
        if not isinstance(vectors, faiss.IndexFlatIP):
            raise BrokenIndexError(f"{folder / _VECTORS} holds no flat inner-product index")
        if vectors.ntotal != manifest.rows or len(table) != manifest.count:
            raise BrokenIndexError(f"{folder}: the files don't belong together")
        return cls(table, vectors, manifest)

    def save(self, folder: str | Path) -> None:
        """Write the index as a new folder: whole, or not at all.

        Raises: ConflictError if the folder exists.
        """
        folder = Path(folder)
        if folder.exists():
            raise ConflictError(f"{folder} exists already; an index never changes once written")
        staged = folder.with_name(f".{folder.name}.staged")
        staged.mkdir(parents=True)
        self.write_files(staged)
        publish_folder(staged, folder)

    def write_files(self, folder: Path) -> None:
        """Write and sync every file into an existing, empty folder. Not atomic: see `save`."""
        faiss.write_index(self._vectors, str(folder / _VECTORS))
        self._table.write(folder / _CATEGORIES)
        files = {}
        for name in (_VECTORS, _CATEGORIES):
            sync_file(folder / name)
            files[name] = record_file(folder / name)
        self.manifest = dataclasses.replace(self.manifest, files=files)
        write_manifest(folder, self.manifest)

    def check_encoder(self, encoder: Encoder) -> None:
        """Raises: WrongModelError if the encoder's vectors don't belong into this index."""
        _check_fingerprint(self.manifest, encoder.fingerprint, "this index")

    def __len__(self) -> int:
        return len(self._table)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.manifest.dim

    @property
    def probability_kind(self) -> ProbabilityKind:
        """How the probabilities come about; see `Ranking`."""
        return "exact" if self.manifest.model.logit_bias is None else "sigmoid"

    def labels(self, start: int = 0, stop: int | None = None) -> list[str]:
        """Labels start..stop in the index's order."""
        return self._table.labels(start, stop)

    def category(self, position: int) -> Category:
        """The category at `position`."""
        return self._table.category(position)

    def search(self, vectors: Vectors, top_k: int) -> list[list[Match]]:
        """The best `top_k` categories for each query vector, best first.

        vectors: float32 [N, D], rows of unit norm; returns N lists of min(top_k, len(self)).
        Raises: VectorError.
        """
        return [list(ranking.matches) for ranking in self.rank(vectors, top_k)]

    def rank(self, vectors: Vectors, top_k: int) -> list[Ranking]:
        """As `search`, with groups and the kind of probability.

        Raises: VectorError.
        """
        queries = self._checked(vectors, top_k)
        block = max(1, _SCORES_AT_ONCE // max(1, self._vectors.ntotal))
        rankings: list[Ranking] = []
        for start in range(0, len(queries), block):
            rankings += self._rank_exactly(queries[start : start + block], top_k)
        return rankings

    def _rank_exactly(self, queries: Vectors, top_k: int) -> list[Ranking]:
        scores = queries @ self._stored().T  # (N, rows)
        if self._table.has_synonyms:
            scores = np.maximum.reduceat(scores, self._table.starts[:-1], axis=1)  # (N, categories)
        model = self.manifest.model
        if model.logit_bias is None:
            probabilities = softmax(model.logit_scale * scores)
        else:
            probabilities = sigmoid(model.logit_scale * scores + model.logit_bias)
        positions = best(scores, top_k)
        groups = self._group_probabilities(probabilities)
        return [
            Ranking(
                tuple(
                    self._match(int(position), float(s[position]), float(p[position]), rank)
                    for rank, position in enumerate(chosen, start=1)
                ),
                self._groups(g, top_k),
                self.probability_kind,
            )
            for s, p, g, chosen in zip(scores, probabilities, groups, positions, strict=True)
        ]

    def _group_probabilities(self, probabilities: np.ndarray) -> np.ndarray:
        """float64 [N, categories] -> float64 [N, groups]."""
        sums = np.zeros((len(probabilities), len(self._table.groups)))
        if sums.size:
            combine = np.add if self.manifest.model.logit_bias is None else np.maximum
            members = np.flatnonzero(self._table.group_of >= 0)
            rows = np.arange(len(probabilities))[:, None]
            combine.at(sums, (rows, self._table.group_of[members]), probabilities[:, members])
        return sums

    def _groups(self, probabilities: np.ndarray, top_k: int) -> tuple[GroupMatch, ...]:
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        return tuple(
            GroupMatch(self._table.groups[group], float(probabilities[group]), rank)
            for rank, group in enumerate(order, start=1)
        )

    def _match(self, position: int, score: float, probability: float, rank: int) -> Match:
        group = int(self._table.group_of[position])
        return Match(
            label=self._table.label(position),
            score=max(-1.0, min(1.0, score)),
            probability=probability,
            rank=rank,
            metadata=self._table.metadata(position),
            group=self._table.groups[group] if group >= 0 else None,
            background=bool(self._table.background[position]),
        )

    def _stored(self) -> Vectors:
        """FAISS's own copy of the vectors, not another one: float32 [rows, D]."""
        flat = faiss.rev_swig_ptr(self._vectors.get_xb(), self._vectors.ntotal * self.dim)
        stored: Vectors = flat.reshape(self._vectors.ntotal, self.dim)
        return stored

    def _checked(self, vectors: Vectors, top_k: int) -> Vectors:
        queries = np.ascontiguousarray(vectors, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise VectorError(
                f"query vectors must have the shape [N, {self.dim}], not {list(queries.shape)}",
                param="vectors",
            )
        if not np.isfinite(queries).all():
            raise VectorError("query vectors hold values that aren't finite", param="vectors")
        if top_k < 1:
            raise VectorError(f"top_k must be 1 or more, not {top_k}", param="top_k")
        return queries


def _check_fingerprint(manifest: Manifest, fingerprint: str, name: str) -> None:
    if manifest.model.fingerprint != fingerprint:
        raise WrongModelError(
            f"{name} was built with {manifest.model.id} (fingerprint "
            f"{manifest.model.fingerprint[:12]}), not with the model in use ({fingerprint[:12]}); "
            "build it again with this model",
            param="index",
        )
