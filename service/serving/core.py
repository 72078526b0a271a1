"""Which index, adapter and model answer, read from the data folder.

Nothing here knows asyncio or HTTP: the command line and Ray call it directly, the server calls it
on its threads and keeps what it returns (`current_indexes`, `current_adapters`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from indexer import (
    CategoryIndex,
    ImageIndex,
    IndexStore,
    LayoutOptions,
    Progress,
    PromptCache,
    read_categories,
)
from indexer.categories.table import CategoryTable
from indexer.category_index import TABLE
from indexer.errors import BrokenIndexError, UnknownIndexError, UnknownVersionError, WrongModelError
from models import Encoder, load_encoder
from models.errors import ClipdexError
from service.errors import IndexKindError
from service.serving.assignments import NONE, AdapterRef, Assignments, parse_adapter
from service.serving.classifier import Classifier, embedded_anew
from service.settings import Settings

if TYPE_CHECKING:
    from training.adapters.adapter import Adapter
    from training.adapters.store import AdapterStore
    from training.adapters.tuned_model import TunedModel

log = logging.getLogger("clipdex")
DEFAULT = "default"
DEFAULT_TEMPLATES = "everyday"
CATEGORIES = Path(__file__).parents[1] / "default_categories.txt"
Report = Callable[[Progress], None]
AnyIndex = CategoryIndex | ImageIndex
Held = TypeVar("Held", bound=AnyIndex, covariant=True)


@dataclass(frozen=True)
class LoadedIndex(Generic[Held]):
    """An index in memory. name and version are None for the labels of a request.

    mark: tells the version from one of the same number in an index that was deleted and made anew
    problem: why it isn't the version on disk as it was published, if it isn't
    """

    name: str | None
    version: int | None
    index: Held
    mark: object = None
    problem: ClipdexError | None = None


class ServingCore:
    """The data folder of some settings. Its methods block; safe to use from any thread."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.indexes = IndexStore(settings.indexes)
        self.prompts = PromptCache(settings.prompt_cache)
        self.assignments = Assignments(settings.adapters)

    @cached_property
    def adapters(self) -> AdapterStore:
        """The adapters on disk. Imports torch when it is first asked for."""
        from training.adapters.store import AdapterStore

        return AdapterStore(self.settings.adapters.absolute())

    def load_model(self, model_id: str | None = None) -> Encoder:
        """A model in the settings' backend and precision; None: the settings' own model.

        Raises: UnknownModelError, ModelUnavailableError, ModelBrokenError, BackendError.
        """
        return load_encoder(
            model_id or self.settings.model,
            backend=self.settings.backend,
            device=self.settings.device,
            precision=self.settings.precision,
            cache_dir=self.settings.cache,
        )

    # Indexes

    def mark(self, name: str, version: int) -> object:
        """What tells a version from another one of the same number; cheap."""
        try:
            found = (self.indexes.root / name / str(version) / "manifest.json").stat()
        except OSError:
            return version  # it is damaged; loading it says how
        return version, found.st_ino, found.st_mtime_ns

    def load_index(self, name: str, version: int, encoder: Encoder) -> LoadedIndex[AnyIndex]:
        """A version of an index of either kind, for this encoder.

        The default index of another model is embedded anew in memory; the version on disk, which
        another server may use, stays as it is.

        Raises: UnknownIndexError, UnknownVersionError, BrokenIndexError, WrongModelError.
        """
        mark = self.mark(name, version)
        if self.indexes.info(name, version).manifest.kind == "images":
            images = self.indexes.load_images(name, version, fingerprint=encoder.fingerprint)
            return LoadedIndex(name, version, images, mark)
        try:
            index = self.indexes.load(name, version, fingerprint=encoder.fingerprint)
        except WrongModelError as error:
            if name != DEFAULT:
                raise
            index = embedded_anew(self.indexes.load(name, version), encoder, self.prompts)
            log.warning(
                "index %s: version %d was built with another model; its categories are embedded "
                "with %s in memory",
                name,
                version,
                encoder.model_id,
            )
            return LoadedIndex(name, version, index, mark, error)
        return LoadedIndex(name, version, index, mark)

    def load_categories(
        self, name: str, encoder: Encoder, version: int | None = None
    ) -> LoadedIndex[CategoryIndex]:
        """A version, by default the current one, of an index that must hold categories.

        Raises: as `load_index`; IndexKindError.
        """
        chosen = version or current_of_kind(self.indexes, name, "categories")
        return categories_of(self.load_index(name, chosen, encoder))

    def problem_of(self, name: str, fingerprint: str) -> ClipdexError | None:
        """Why the current version can't be used with a model, if it can't. Reads the manifest.

        Raises: UnknownIndexError.
        """
        try:
            manifest = self.indexes.info(name).manifest
        except BrokenIndexError as error:
            return error
        if manifest.model.fingerprint == fingerprint:
            return None
        return WrongModelError(
            f"version {self.indexes.current_version(name)} of the index {name!r} was built with "
            f"the model {manifest.model.id}, and this is another one; build it anew",
            param="index",
        )

    def default_is_due(self) -> bool:
        """Whether the bundled default index has to be built.

        It is due where there is no default index, and where there is the bundled one as another
        version of clipdex wrote it. A default index of another model is not built anew: another
        server may use it.

        Raises: BrokenIndexError if it can't be read, and isn't the bundled one.
        """
        try:
            self.indexes.info(DEFAULT)
        except UnknownIndexError:
            return True
        except BrokenIndexError:
            if self._is_bundled():
                return True
            raise
        return False

    def build_default(self, encoder: Encoder, report: Report | None = None) -> CategoryIndex:
        """The bundled categories as an index, not published."""
        return CategoryIndex.build(
            read_categories(CATEGORIES),
            encoder,
            templates=DEFAULT_TEMPLATES,
            cache=self.prompts,
            on_progress=report,
        )

    def _is_bundled(self) -> bool:
        """Whether an index that can't be read as a whole holds exactly the bundled categories."""
        folder = self.indexes.root / DEFAULT / str(self.indexes.current_version(DEFAULT))
        try:
            return list(CategoryTable.read(folder / TABLE)) == read_categories(CATEGORIES)
        except BrokenIndexError:
            return False

    # Adapters

    def adapter_for(self, index: str, asked: str | None) -> AdapterRef | None:
        """The adapter that answers for an index; None: zero-shot answers.

        asked: NAME, NAME@VERSION, "none", or None for the index's own adapter
        Raises: ParameterError; UnknownAdapterError where one is named that has no current version.
        """
        if asked == NONE:
            return None
        if asked is None:
            return self.assignments.current(index)
        name, version = parse_adapter(asked)
        if version is None:
            version = self.assignments.current_version(name)
        if version is None:
            version = self.adapters.live(name)  # its error says why there is none
        return AdapterRef(name, version)

    def load_adapter(self, ref: AdapterRef, fingerprint: str) -> Adapter | TunedModel:
        """A verified version of an adapter for a model.

        Raises: UnknownAdapterError, AdapterError, FingerprintError.
        """
        return self.adapters.load(ref.name, ref.version, fingerprint=fingerprint)

    # Both together

    def classifier(
        self,
        index: str,
        adapter: AdapterRef | None,
        encoder: Encoder,
        *,
        version: int | None = None,
        load_model: Callable[[str], Encoder] | None = None,
        report: Report | None = None,
    ) -> Classifier:
        """What answers for an index. The bundled default index is built if there is none.

        version: of the index; None for the current one
        load_model: makes the encoder of an adapter's own model; None for `self.load_model`
        Raises: what loading a model, an index or an adapter raises. There is no fallback: an
        adapter that can't be used is an error.
        """
        if index == DEFAULT and version is None and self.default_is_due():
            self.indexes.publish(DEFAULT, self.build_default(encoder, report))
        opened = self.load_categories(index, encoder, version)
        plain = Classifier.zero_shot(index, opened.version, opened.index, encoder)
        if adapter is None:
            return plain
        loaded = self.load_adapter(adapter, encoder.fingerprint)
        own = encoder
        if loaded.manifest.changes == "weights":
            own = (load_model or self.load_model)(loaded.model_id)  # type: ignore[union-attr]
        return Classifier.adapted(plain, adapter, loaded, own, self.prompts)


def version_before(store: IndexStore, name: str) -> int:
    """The kept version before the current one.

    Raises: UnknownIndexError, UnknownVersionError.
    """
    current = store.current_version(name)
    older = [version for version in store.versions(name) if version < current]
    if not older:
        raise UnknownVersionError(
            f"the index {name!r} has no version before {current}", param="version"
        )
    return older[-1]


def layout_options(recall: float | None, memory_mb: float | None) -> LayoutOptions:
    """The options that were given, the defaults for the others. Raises: LayoutError."""
    default = LayoutOptions()
    return LayoutOptions(recall=default.recall if recall is None else recall, memory_mb=memory_mb)


def kind_error(name: str, kind: str) -> IndexKindError:
    """The error where an index of this kind can't be used."""
    if kind == "images":
        message = "holds images, not categories: it can be searched, not classified with"
    else:
        message = "holds categories, not images: it can be classified with, not searched"
    return IndexKindError(f"the index {name!r} {message}", param="index")


def current_of_kind(store: IndexStore, name: str, kind: str) -> int:
    """The current version of an index that must be of this kind.

    Raises: UnknownIndexError, BrokenIndexError, IndexKindError.
    """
    info = store.info(name)
    if info.manifest.kind != kind:
        raise kind_error(name, info.manifest.kind)
    return info.version


def categories_of(loaded: LoadedIndex[AnyIndex]) -> LoadedIndex[CategoryIndex]:
    """Raises: IndexKindError unless the index holds categories."""
    if not isinstance(loaded.index, CategoryIndex):
        raise kind_error(str(loaded.name), "images")
    return loaded  # type: ignore[return-value]


def images_of(loaded: LoadedIndex[AnyIndex]) -> LoadedIndex[ImageIndex]:
    """Raises: IndexKindError unless the index holds images."""
    if not isinstance(loaded.index, ImageIndex):
        raise kind_error(str(loaded.name), "categories")
    return loaded  # type: ignore[return-value]
