"""Hooks of other systems: entry points of the group `clipdex.callbacks`, used by name.

Each is a callable that takes a `JobInfo` and returns a `training.Callback`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from service.errors import HookUnusableError

if TYPE_CHECKING:
    from training import Callback

GROUP = "clipdex.callbacks"


@dataclass(frozen=True)
class JobInfo:
    """Which job a hook watches: its id, the adapter's name, the index it is for, the method."""

    id: str
    adapter: str
    index: str
    method: str


def installed_hooks(names: Iterable[str], info: JobInfo) -> list[Callback]:
    """The hooks with these names.

    Raises: HookUnusableError for one that isn't installed, can't be imported or makes no callback.
    """
    return [_hook(name, info) for name in names]


def _hook(name: str, info: JobInfo) -> Callback:
    from training import Callback

    found = list(entry_points(group=GROUP, name=name))
    if not found:
        known = ", ".join(sorted(entry_points(group=GROUP).names)) or "none"
        raise HookUnusableError(
            f"no callback named {name!r} is installed; there are: {known}", param="callbacks"
        )
    try:
        make = found[0].load()
    except (ImportError, AttributeError) as error:
        raise HookUnusableError(
            f"the callback {name!r} can't be imported: {error}", param="callbacks"
        ) from error
    hook = make(info)
    if not isinstance(hook, Callback):
        raise HookUnusableError(
            f"the callback {name!r} made a {type(hook).__name__}, no training.Callback",
            param="callbacks",
        )
    return hook
