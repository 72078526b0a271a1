"""The read stage."""

from __future__ import annotations

from service.batch.errors import ItemError
from service.batch.item import Item
from service.batch.storage import read_bytes


def read_item(item: Item) -> bytes:
    """An image file's bytes. Raises: ItemError, StorageUnreachableError."""
    if item.error is not None:
        raise ItemError(item.error)
    return read_bytes(item.place, item.start, item.size)
