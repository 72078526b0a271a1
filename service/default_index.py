"""The index that answers when nobody has built one: about 300 everyday things."""

from __future__ import annotations

from pathlib import Path

from indexer import Category, IndexStore, read_categories
from indexer.errors import UnknownIndexError

DEFAULT = "default"
DEFAULT_TEMPLATES = "pictogram"
CATEGORIES = Path(__file__).parent / "default_categories.txt"


def default_is_due(store: IndexStore, fingerprint: str) -> bool:
    """Whether the default index has to be built: it isn't there, or is of another model."""
    try:
        return store.info(DEFAULT).manifest.model.fingerprint != fingerprint
    except UnknownIndexError:
        return True


def default_categories(store: IndexStore) -> list[Category]:
    """Those of the default index of another model, or the bundled ones.

    Raises: BrokenIndexError.
    """
    try:
        index = store.load(DEFAULT)
    except UnknownIndexError:
        return read_categories(CATEGORIES)
    return [index.category(position) for position in range(len(index))]
