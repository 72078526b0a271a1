"""A category database: build it from words, search it with image vectors, keep it on disk."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.categories.category import Category, as_categories, check_unique
from indexer.categories.table import CategoryTable
from indexer.categories.unknown import unknown_names, unknown_warnings
from indexer.errors import BrokenIndexError, CategoryError
from indexer.manifest import (
    Manifest,
    ModelRecord,
    check_fingerprint,
    read_index,
    save_folder,
    write_index,
)
from indexer.ranking.answer import Answer, Policy, answer, minimum
from indexer.ranking.calibration import Calibration
from indexer.ranking.match import Match, ProbabilityKind, Ranking
from indexer.ranking.ranking import Evidence, Mode, Odds, Ranker, Replaced
from indexer.vectors.embedding import (
    OnProgress,
    check_lengths,
    embed,
    row_prompts,
    word_prompts,
)
from indexer.vectors.flat import FlatVectors, checked_queries
from indexer.vectors.ivf import IvfVectors
from indexer.vectors.layout import LayoutOptions
from indexer.vectors.prompt_cache import PromptCache
from indexer.vectors.vector_index import change_vectors, lay_out
from models.encoder import Encoder, Vectors
from models.prompts import Templates, resolve_templates

TABLE = "categories.parquet"


class CategoryIndex:
    """Categories, their vectors and how to compare them. Never changes: a change is a new index.

    Safe to search from many threads at once. Make one with `build`, `changed` or `load`.
    """

    def __init__(
        self, table: CategoryTable, vectors: FlatVectors | IvfVectors, manifest: Manifest
    ) -> None:
        if len(table) != manifest.count or table.starts[-1] != manifest.rows:
            raise BrokenIndexError("the index's categories and vectors don't belong together")
        self.manifest = manifest
        self._table = table
        self._vectors = vectors
        self._ranker = Ranker(table, vectors, _odds(manifest), manifest.other_rows)

    @classmethod
    def build(
        cls,
        categories: Iterable[str | Category],
        encoder: Encoder,
        *,
        templates: str | Sequence[str] = "everyday",
        options: LayoutOptions | None = None,
        images: Vectors | None = None,
        cache: PromptCache | None = None,
        on_progress: OnProgress | None = None,
    ) -> CategoryIndex:
        """Encode the categories' prompts and index their vectors.

        templates: a set's name (see `TEMPLATE_SETS`) or sentences with `{}` for the label
        options: wanted recall and memory of an index too large to compare every vector
        images: embeddings of images like those that will come, to tune such an index on; [M, D]
        cache: where prompts' vectors are kept, so that an interrupted build goes on
        Raises: CategoryError, TemplateError, PromptTooLongError, LayoutError.
        """
        listed = as_categories(categories)
        resolved = resolve_templates(templates)
        options = options or LayoutOptions()
        rows = list(row_prompts(listed, resolved))
        check_lengths(rows, encoder, on_progress=on_progress)
        words = word_prompts(len(listed), len(rows), encoder, options)
        vectors = embed([*rows, *words], encoder, cache=cache, on_progress=on_progress)
        placed, layout = lay_out(
            vectors,
            options,
            scale=encoder.logit_scale if encoder.logit_bias is None else None,
            images=images,
            on_progress=on_progress,
        )
        table = CategoryTable.of(listed)
        unknown, unknown_count = unknown_names(table, encoder)
        manifest = Manifest(
            kind="categories",
            created=_now(),
            count=len(listed),
            rows=len(rows),
            other_rows=len(words),
            dim=encoder.dim,
            model=ModelRecord(
                id=encoder.model_id,
                fingerprint=encoder.fingerprint,
                logit_scale=encoder.logit_scale,
                logit_bias=encoder.logit_bias,
            ),
            source=None,
            templates={"name": resolved.name, "texts": list(resolved.texts)},
            layout=layout,
            calibration=None,
            files={},
            unknown_names=unknown,
            unknown_count=unknown_count,
        )
        return cls(table, placed, manifest)

    @classmethod
    def load(cls, folder: str | Path, *, fingerprint: str | None = None) -> CategoryIndex:
        """Read an index that `save` wrote; every file's checksum is verified.

        fingerprint: of the encoder that will make the query vectors
        Raises: BrokenIndexError naming the file at fault; WrongModelError.
        """
        folder = Path(folder)
        manifest, vectors = read_index(folder, "categories", fingerprint=fingerprint)
        return cls(CategoryTable.read(folder / TABLE), vectors, manifest)

    def save(self, folder: str | Path) -> None:
        """Write the index as a new folder: whole, or not at all.

        Raises: ConflictError if the folder exists.
        """
        save_folder(Path(folder), self.write_files)

    def write_files(self, folder: Path) -> None:
        """Write and sync every file into an existing, empty folder. Not atomic: see `save`."""
        write_index(folder, self.manifest, self._vectors, TABLE, self._table.write)

    def changed(
        self,
        encoder: Encoder,
        *,
        add: Iterable[str | Category] = (),
        remove: Iterable[str] = (),
        options: LayoutOptions | None = None,
        cache: PromptCache | None = None,
        on_progress: OnProgress | None = None,
    ) -> CategoryIndex:
        """A new index without the categories labelled `remove`, and with those to `add`.

        Only the added categories' prompts are encoded. A label in both is replaced.
        Raises: CategoryError for a label that isn't there, is there already, or if nothing would
        change or remain; WrongModelError, PromptTooLongError, LayoutError.
        """
        self.check_encoder(encoder)
        change = plan_change(self._table, add, remove)
        options = options or LayoutOptions()
        added = list(row_prompts(change.added, self._templates()))
        check_lengths(added, encoder, on_progress=on_progress)
        rows = int(change.table.starts[-1])
        words = word_prompts(len(change.table), rows, encoder, options)
        keep = np.append(change.keep_rows, np.zeros(self.manifest.other_rows, dtype=np.bool_))
        if words and self.manifest.other_rows:
            known = self._vectors.take(np.arange(self.manifest.rows, len(self._vectors)))
            new = embed(added, encoder, cache=cache, on_progress=on_progress)
            new = np.concatenate([new, known])
        else:
            new = embed([*added, *words], encoder, cache=cache, on_progress=on_progress)
        vectors, layout = change_vectors(
            self._vectors,
            self.manifest.layout,
            keep,
            new,
            options,
            scale=encoder.logit_scale if encoder.logit_bias is None else None,
            on_progress=on_progress,
        )
        unknown, unknown_count = unknown_names(change.table, encoder)
        manifest = dataclasses.replace(
            self.manifest,
            created=_now(),
            count=len(change.table),
            rows=rows,
            other_rows=len(words),
            layout=layout,
            files={},
            unknown_names=unknown,
            unknown_count=unknown_count,
        )
        return CategoryIndex(change.table, vectors, manifest)

    def calibrated(self, calibration: Calibration | None) -> CategoryIndex:
        """A new index of the same categories with another calibration, or with none."""
        manifest = dataclasses.replace(
            self.manifest, created=_now(), calibration=calibration, files={}
        )
        return CategoryIndex(self._table, self._vectors, manifest)

    def check_encoder(self, encoder: Encoder) -> None:
        """Raises: WrongModelError if the encoder's vectors don't belong into this index."""
        check_fingerprint(self.manifest, encoder.fingerprint, "this index")

    def __len__(self) -> int:
        return len(self._table)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.manifest.dim

    @property
    def probability_kind(self) -> ProbabilityKind:
        """How single-label probabilities come about; see `Ranking`."""
        return self._ranker.kind("single")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What users of this index should know, in sentences: names that the model can't read."""
        about = self.manifest
        return unknown_warnings(about.unknown_names, about.unknown_count, about.model.id)

    def labels(self, start: int = 0, stop: int | None = None) -> list[str]:
        """Labels start..stop in the index's order."""
        return self._table.labels(start, stop)

    @property
    def odds(self) -> Odds:
        """How cosines become probabilities here, without the calibration."""
        return Odds(self.manifest.model.logit_scale, self.manifest.model.logit_bias)

    @property
    def others_size(self) -> int:
        """How many other categories an independent probability is set against."""
        return max(len(self), self.manifest.other_rows)

    def positions(self, labels: Sequence[str], *, synonyms: bool = False) -> NDArray[np.int64]:
        """Where each label (or synonym, if they count) stands, -1 where it doesn't: int64 [len]."""
        return self._table.owners(labels) if synonyms else self._table.positions(labels)

    def category(self, position: int) -> Category:
        """The category at `position`."""
        return self._table.category(position)

    def vectors(self, positions: Sequence[int]) -> Vectors:
        """The unit vectors of these categories, one after the other: float32 [R, D].

        R is at least their number: a category with synonyms has several. A compressed layout gives
        them back as it compares them.
        """
        starts = self._table.starts
        rows = [np.arange(starts[at], starts[at + 1]) for at in positions]
        return self._vectors.take(np.concatenate([np.empty(0, np.int64), *rows]))

    def search(self, vectors: Vectors, top_k: int) -> list[list[Match]]:
        """The best `top_k` categories for each query vector, best first.

        vectors: float32 [N, D], rows of unit norm; returns N lists of min(top_k, len(self)).
        Raises: VectorError.
        """
        return [list(ranking.matches) for ranking in self.rank(vectors, top_k)]

    def rank(
        self,
        vectors: Vectors,
        top_k: int,
        *,
        mode: Mode = "single",
        replaced: Replaced | None = None,
    ) -> list[Ranking]:
        """As `search`, with groups and the kind of probability.

        mode: "single" lets the categories compete for the image; "multi" gives each category a
        probability of its own, which doesn't depend on the others
        replaced: cosines of some categories that count instead of the index's own; the index's
        calibration was fitted without them, so it isn't applied then
        Raises: VectorError.
        """
        return self._ranker.rank(checked_queries(vectors, self.dim, top_k), top_k, mode, replaced)

    def weigh(self, vectors: Vectors) -> Iterator[Evidence]:
        """The cosines that each image's probabilities follow from; for fitting a calibration.

        Raises: VectorError.
        """
        return self._ranker.weigh(checked_queries(vectors, self.dim, 1), 1)

    def answer(
        self,
        vectors: Vectors,
        top_k: int,
        policy: Policy | None = None,
        *,
        replaced: Replaced | None = None,
    ) -> list[Answer]:
        """What to say of each image: its matches, and whether they are to be believed.

        replaced: see `rank`
        Raises: VectorError; PolicyError if the policy needs a calibration that isn't there.
        """
        policy = policy or Policy()
        calibration = None if replaced is not None else self.manifest.calibration
        minimum(policy, calibration)  # before anything is computed
        rankings = self.rank(vectors, top_k, mode=policy.mode, replaced=replaced)
        return [answer(ranking, policy, calibration) for ranking in rankings]

    def _templates(self) -> Templates:
        templates = self.manifest.templates or {}
        return Templates(templates["name"], tuple(templates["texts"]))


def _odds(manifest: Manifest) -> Odds:
    model, calibration = manifest.model, manifest.calibration
    if calibration is None:
        return Odds(model.logit_scale, model.logit_bias)
    return Odds(
        model.logit_scale,
        model.logit_bias,
        temperature=calibration.temperature,
        slope=calibration.slope,
        offset=calibration.offset,
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


# ---- What a change of some categories leaves and adds.


_SHOWN = 3  # labels named in one error


@dataclass(frozen=True)
class Change:
    """The table after a change, and which of the old vectors stay: bool [rows].

    The kept categories come first, in their order; then `added`, in theirs.
    """

    table: CategoryTable
    keep_rows: NDArray[np.bool_]
    added: list[Category]


def plan_change(
    table: CategoryTable, add: Iterable[str | Category], remove: Iterable[str]
) -> Change:
    """Raises: CategoryError for a label that isn't there, is there already, occurs twice, or if
    nothing would change or remain.
    """
    added = [Category(item) if isinstance(item, str) else item for item in add]
    removed = [Category(label).label for label in remove]
    if not added and not removed:
        raise CategoryError("there is nothing to add or remove", param="categories")
    check_unique(added)
    check_unique(Category(label) for label in removed)
    positions = table.positions(removed)
    if missing := [label for label, at in zip(removed, positions, strict=True) if at < 0]:
        raise CategoryError(f"no category is labelled {_some(missing)}", param="remove")
    keep = np.ones(len(table), dtype=np.bool_)
    keep[positions] = False
    if not added and not keep.any():
        raise CategoryError(
            "this would take out every category; delete the index instead", param="remove"
        )
    kept = table.take(np.flatnonzero(keep))
    names = [name for category in added for name in category.names]
    if taken := [name for name, at in zip(names, kept.owners(names), strict=True) if at >= 0]:
        raise CategoryError(
            f"there is already a category named {_some(taken)}; to replace it, list its label "
            "under 'remove' too",
            param="add",
        )
    new = kept.joined(CategoryTable.of(added)) if added else kept
    return Change(new, np.repeat(keep, np.diff(table.starts)), added)


def _some(labels: list[str]) -> str:
    shown = ", ".join(repr(label) for label in labels[:_SHOWN])
    more = len(labels) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
