"""What a change of some categories leaves and adds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.category import Category, check_unique
from indexer.category_table import CategoryTable
from indexer.errors import CategoryError

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
