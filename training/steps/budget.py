"""A budget of time, and who gets how much of it."""

from __future__ import annotations

import re

from training.errors import RecipeError

_UNITS = {"": 1.0, "s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_FORM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*")


def seconds(budget: str | float) -> float:
    """ "2min", "90s", "1.5h" or a number of seconds -> seconds.

    Raises: RecipeError for another form, or nothing at all.
    """
    if not isinstance(budget, str) and budget > 0:
        return float(budget)
    match = _FORM.fullmatch(str(budget).lower())
    if match is None or match[2] not in _UNITS or float(match[1]) <= 0:
        raise RecipeError(
            f'budget must be like "2min", "90s" or 120, got {budget!r}', param="budget"
        )
    return float(match[1]) * _UNITS[match[2]]
