"""The tree of errors in service/errors.py is the one in the code."""

from __future__ import annotations

import re

import indexer.errors
import models.errors
import models.images
import service.errors
import training.errors
from models.errors import ClipdexError, UserError

ROOMS = (models.errors, models.images, indexer.errors, training.errors, service.errors)


def drawn() -> dict[str, int]:
    """Each error in the drawing and the depth at which it stands."""
    found = {}
    depth = 0
    for line in (service.errors.__doc__ or "").splitlines():
        if not re.match(r"    ([|`A-Z]|$)", line) or not line.strip():
            continue
        if "--" in line:
            depth = line.index("--") // 4
        for name in re.findall(r"\b\w+Error\b", line.partition("  " * 6)[0]):
            found[name] = depth if name != "ClipdexError" else 0
    return found


def test_the_drawing_names_every_error_at_its_depth():
    kinds = {
        item.__name__: len([base for base in item.__mro__ if issubclass(base, ClipdexError)]) - 1
        for room in ROOMS
        for item in vars(room).values()
        if isinstance(item, type) and issubclass(item, ClipdexError)
    }
    assert kinds == drawn()
    assert drawn()[UserError.__name__] == 1
