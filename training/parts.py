"""The building blocks of a recipe: frozen dataclasses that turn into plain data and back.

A part is written as `{ClassName: {field: value}}`. Reading looks the name up in a register of known
parts and never imports anything by name, so a recipe from a stranger can't run code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from training.errors import RecipeError

_PARTS: dict[str, type[Any]] = {}
PartType = TypeVar("PartType")


def part(cls: type[PartType]) -> type[PartType]:
    """Class decorator: make a frozen dataclass known by its name."""
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls.__name__} is no dataclass")
    known = _PARTS.setdefault(cls.__name__, cls)
    if known.__module__ != cls.__module__:
        raise TypeError(f"two parts are named {cls.__name__}")
    return cls


def to_plain(value: Any) -> Any:
    """A part, or a value inside of one, as dicts, lists, strings and numbers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
        return {type(value).__name__: fields}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise RecipeError(f"{value!r} can't be written into a recipe; use numbers, text and parts")


def from_plain(plain: Any) -> Any:
    """What `to_plain` wrote, as parts again.

    Raises: RecipeError for an unknown part or field, naming the known ones.
    """
    if isinstance(plain, list):
        return tuple(from_plain(item) for item in plain)
    if isinstance(plain, Mapping):
        if len(plain) == 1:
            (name, fields), *_ = plain.items()
            if name in _PARTS:
                return _build(_PARTS[name], fields or {})
            if str(name)[:1].isupper():
                known = ", ".join(sorted(_PARTS))
                raise RecipeError(f"unknown part {name!r}; known parts: {known}", param=str(name))
        return {key: from_plain(item) for key, item in plain.items()}
    return plain


def _build(cls: type[Any], fields: Any) -> Any:
    if not isinstance(fields, Mapping):
        raise RecipeError(f"{cls.__name__} takes fields by name, got {fields!r}")
    known = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(set(map(str, fields)) - known)
    if unknown:
        raise RecipeError(
            f"{cls.__name__} has no field {unknown[0]!r}; it has: {', '.join(sorted(known))}",
            param=unknown[0],
        )
    values = {str(key): from_plain(value) for key, value in fields.items()}
    try:
        return cls(**values)
    except TypeError as exc:
        raise RecipeError(f"{cls.__name__}: {exc}") from exc


def check_share(name: str, value: float, *, upper_open: bool = False) -> None:
    """Raise RecipeError unless 0 <= value <= 1 (or < 1)."""
    if not 0 <= value <= 1 or (upper_open and value == 1):
        bound = "at least 0 and below 1" if upper_open else "between 0 and 1"
        raise RecipeError(f"{name} must be {bound}, got {value}", param=name)


def check_positive(name: str, value: float) -> None:
    """Raise RecipeError unless value > 0."""
    if not value > 0:
        raise RecipeError(f"{name} must be above 0, got {value}", param=name)


def check_not_negative(name: str, value: float) -> None:
    """Raise RecipeError unless value >= 0."""
    if not value >= 0:
        raise RecipeError(f"{name} must not be negative, got {value}", param=name)


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise RecipeError unless value is one of `known`."""
    if value not in known:
        raise RecipeError(f"{name} must be one of {', '.join(known)}, got {value!r}", param=name)
