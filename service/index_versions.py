"""Small decisions about indexes that HTTP and the command line have in common."""

from __future__ import annotations

from indexer import IndexStore, LayoutOptions
from indexer.errors import UnknownVersionError


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
