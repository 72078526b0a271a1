"""What `clipdex classify` compares images with: labels, or an index and what was taught to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.cli.options import load_model, open_store
from service.cli.terminal import Reporter
from service.serving.assignments import NONE, AdapterRef, check_precision, parse_asked
from service.settings import Settings

if TYPE_CHECKING:
    from indexer import CategoryIndex
    from models import Encoder
    from service.http.classify_options import ClassifyOptions
    from service.serving.answering import TunedHead


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


def compared(
    settings: Settings,
    options: ClassifyOptions,
    reporter: Reporter,
    *,
    begun: Mapping[str, Any] | None,
) -> Compared:
    """Load the model and what to compare with.

    begun: what an unfinished run has on record: it goes on with its versions, whatever is in force
    now

    Raises: what loading a model, an index or an adapter raises; ParameterError.
    """
    from indexer import CategoryIndex
    from service.serving.indexes import DEFAULT_TEMPLATES

    encoder = load_model(settings, reporter)
    if options.labels is not None:
        templates = DEFAULT_TEMPLATES if options.templates is None else options.templates
        index = CategoryIndex.build(
            options.labels, encoder, templates=templates, on_progress=reporter
        )
        return Compared(settings, encoder, encoder.model_id, index)
    pinned = None if begun is None else begun.get("index_version")
    index, version = open_index(settings, encoder, reporter, version=pinned)
    ref = _adapter(settings, options, begun)
    check_precision(options.precision, ref)
    plain = Compared(
        settings,
        encoder,
        encoder.model_id,
        index,
        version=version,
        created=index.manifest.created,
    )
    return plain if ref is None else _taught(plain, index, ref, reporter)


def open_index(
    settings: Settings, encoder: Encoder, reporter: Reporter, *, version: int | None = None
) -> tuple[CategoryIndex, int]:
    """The settings' index and its version; the default one is built if it isn't there.

    version: None for the one in force. Raises: what loading or building an index raises.
    """
    from indexer import CategoryIndex
    from service.serving.catalog import current_of_kind
    from service.serving.indexes import DEFAULT, default_categories, default_is_due

    store = open_store(settings)
    if settings.index == DEFAULT and default_is_due(store, encoder.fingerprint):
        index = CategoryIndex.build(default_categories(store), encoder, on_progress=reporter)
        return index, store.publish(DEFAULT, index)
    chosen = version or current_of_kind(store, settings.index, "categories")
    return store.load(settings.index, chosen, fingerprint=encoder.fingerprint), chosen


def _adapter(
    settings: Settings, options: ClassifyOptions, begun: Mapping[str, Any] | None
) -> AdapterRef | None:
    """The adapter that was asked for, or else the index's own, as in the service."""
    from service.serving.assignments import Bindings

    if options.adapter == NONE:
        return None
    bindings = Bindings(settings.adapters)
    if begun is not None and "answered_by" in begun:
        pinned = begun["answered_by"]
        name, version = (None, None) if pinned is None else parse_asked(pinned)
    elif options.adapter is not None:
        name, version = parse_asked(options.adapter)
    else:
        name, version = bindings.active(settings.index), None
    if name is None:
        return None
    version = version or bindings.live(name)
    if version is None:
        if options.adapter is None:
            return None  # bound, but gone: zero-shot answers, as in the service
        from training.adapters.store import AdapterStore

        version = AdapterStore(settings.adapters).live(name)  # says why there is none
    return AdapterRef(name, version)


def _taught(plain: Compared, index: CategoryIndex, ref: AdapterRef, reporter: Reporter) -> Compared:
    from indexer import PromptCache
    from service.serving.answering import embedded_anew, tuned_head
    from training.adapters.adapter import Adapter
    from training.adapters.store import AdapterStore

    cache = PromptCache(plain.settings.prompt_cache)
    store = AdapterStore(plain.settings.adapters.absolute())
    with reporter.phase(f"Loading the adapter {ref}"):
        loaded = store.load(ref.name, ref.version, fingerprint=plain.encoder.fingerprint)
    if isinstance(loaded, Adapter):
        head = tuned_head(index, loaded, plain.encoder, cache)
        folder = store.folder(ref.name, ref.version)
        return replace(plain, categories=head, head=folder, adapter=ref)
    own = plain.settings.model_copy(update={"model": loaded.model_id})
    encoder = load_model(own, reporter)
    with reporter.phase(f"Embedding {plain.settings.index} anew"):
        anew = embedded_anew(index, loaded.manifest, encoder, cache)
    return replace(plain, settings=own, encoder=encoder, categories=anew, adapter=ref)
