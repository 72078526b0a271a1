"""The index that answers when nobody has built one: about 300 everyday things."""

from __future__ import annotations

from pathlib import Path

from indexer import Category, IndexStore, read_categories
from indexer.category_index import TABLE
from indexer.category_table import CategoryTable
from indexer.errors import BrokenIndexError, UnknownIndexError

DEFAULT = "default"
DEFAULT_TEMPLATES = "pictogram"
CATEGORIES = Path(__file__).parent / "default_categories.txt"


def default_is_due(store: IndexStore, fingerprint: str) -> bool:
    """Whether the default index has to be built: it isn't there, is of another model, or it is the
    bundled one as another version of clipdex wrote it.

    Raises: BrokenIndexError if it can't be read, and isn't the bundled one.
    """
    try:
        return store.info(DEFAULT).manifest.model.fingerprint != fingerprint
    except UnknownIndexError:
        return True
    except BrokenIndexError:
        if _is_bundled(store):
            return True
        raise


def default_categories(store: IndexStore) -> list[Category]:
    """Those of the default index of another model, or the bundled ones.

    Raises: BrokenIndexError.
    """
    try:
        index = store.load(DEFAULT)
    except UnknownIndexError:
        return read_categories(CATEGORIES)
    except BrokenIndexError:
        if _is_bundled(store):
            return read_categories(CATEGORIES)
        raise
    return [index.category(position) for position in range(len(index))]


def _is_bundled(store: IndexStore) -> bool:
    """Whether an index that can't be read as a whole holds the bundled categories and no others."""
    folder = store.root / DEFAULT / str(store.current_version(DEFAULT))
    try:
        return list(CategoryTable.read(folder / TABLE)) == read_categories(CATEGORIES)
    except BrokenIndexError:
        return False
