"""What `clipdex classify` compares images with: labels, or an index and its adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.cli.options import loaded_model, warn_of
from service.cli.terminal import Reporter
from service.serving.assignments import NONE, AdapterRef, check_precision
from service.settings import Settings

if TYPE_CHECKING:
    from indexer import Category, CategoryIndex
    from models import Encoder
    from service.serving.classifier import TunedHead
    from service.serving.core import ServingCore
    from service.serving.options import ClassifyOptions


@dataclass(frozen=True, eq=False)
class Compared:
    """settings: of the model that encodes the images, the adapter's own if it has one

    encoder: of that model; base: the id of the model that is asked for
    head: the folder of a tuned head's files
    version, created: of the index; None for labels
    """

    settings: Settings
    encoder: Encoder
    base: str
    categories: CategoryIndex | TunedHead
    head: Path | None = None
    adapter: AdapterRef | None = None
    version: int | None = None
    created: str | None = None


@contextmanager
def compared(
    settings: Settings,
    options: ClassifyOptions,
    reporter: Reporter,
    *,
    begun: Mapping[str, Any] | None,
    categories: Sequence[Category] | None = None,
) -> Iterator[Compared]:
    """The model and what to compare with, for the `with` block.

    begun: what an unfinished run has on record: it goes on with its versions, whatever is current
    now

    categories: of a file, in place of the options' labels
    Raises: what loading a model, an index or an adapter raises; ParameterError.
    """
    with ExitStack() as models:
        yield _compared(settings, options, reporter, begun, categories, models)


def _compared(
    settings: Settings,
    options: ClassifyOptions,
    reporter: Reporter,
    begun: Mapping[str, Any] | None,
    categories: Sequence[Category] | None,
    models: ExitStack,
) -> Compared:
    from indexer import CategoryIndex
    from service.serving.core import DEFAULT_TEMPLATES, ServingCore

    encoder = models.enter_context(loaded_model(settings, reporter))
    if options.labels is not None:
        templates = DEFAULT_TEMPLATES if options.templates is None else options.templates
        index = CategoryIndex.build(
            options.labels if categories is None else categories,
            encoder,
            templates=templates,
            on_progress=reporter,
        )
        warn_of(index)
        return Compared(settings, encoder, encoder.model_id, index)
    core = ServingCore(settings)
    adapter = _adapter(core, options, begun)
    check_precision(options.precision, adapter)

    def settings_of(model_id: str) -> Settings:
        return settings.model_copy(update={"model": model_id})

    found = core.classifier(
        settings.index,
        adapter,
        encoder,
        version=None if begun is None else begun.get("index_version"),
        load_model=lambda model_id: models.enter_context(
            loaded_model(settings_of(model_id), reporter)
        ),
        report=reporter,
    )
    warn_of(found.index)
    tuned = adapter is not None and found.own_model is None
    return Compared(
        settings if found.own_model is None else settings_of(found.own_model),
        found.encoder,
        encoder.model_id,
        found.categories,
        head=core.adapters.folder(adapter.name, adapter.version) if adapter and tuned else None,
        adapter=adapter,
        version=found.version,
        created=found.index.manifest.created,
    )


def _adapter(
    core: ServingCore, options: ClassifyOptions, begun: Mapping[str, Any] | None
) -> AdapterRef | None:
    """The adapter that an unfinished run has on record, or else the one that answers now."""
    if options.adapter == NONE or begun is None or "answered_by" not in begun:
        return core.adapter_for(core.settings.index, options.adapter)
    if begun["answered_by"] is None:
        return None
    return core.adapter_for(core.settings.index, begun["answered_by"])
