"""Which version a rollback without a number goes to."""

from __future__ import annotations

from indexer import IndexStore
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
