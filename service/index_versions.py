"""Small decisions about indexes that HTTP and the command line have in common."""

from __future__ import annotations

from indexer import IndexStore, LayoutOptions
from indexer.errors import UnknownVersionError
from service.errors import IndexKindError


def version_before(store: IndexStore, name: str) -> int:
    """The kept version before the one in force.

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
    """What to say where an index of this kind is no use."""
    if kind == "images":
        message = "holds images; search it (POST /v1/search, clipdex search)"
    else:
        message = "holds categories; compare with it (POST /v1/classify, clipdex classify)"
    return IndexKindError(f"the index {name!r} {message}", param="index")


def current_of_kind(store: IndexStore, name: str, kind: str) -> int:
    """The version in force of an index that must be of this kind.

    Raises: UnknownIndexError, BrokenIndexError, IndexKindError.
    """
    info = store.info(name)
    if info.manifest.kind != kind:
        raise kind_error(name, info.manifest.kind)
    return info.version
