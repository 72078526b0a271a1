"""A search space: recipe fields by dotted path, and the values they may take."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.errors import RecipeError
from training.parts import from_plain, to_plain
from training.recipe import Recipe


@dataclass(frozen=True)
class LogUniform:
    """Any number from low to high, evenly by its logarithm; `points` of them on a grid."""

    low: float
    high: float
    points: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise RecipeError(f"a log scale needs 0 < low < high, got {self.low}, {self.high}")

    def grid(self) -> list[float]:
        """From low to high, both included."""
        return [
            self.low * (self.high / self.low) ** (i / max(1, self.points - 1))
            for i in range(self.points)
        ]


@dataclass(frozen=True)
class Uniform:
    """Any number from low to high; `points` of them on a grid."""

    low: float
    high: float
    points: int = 4

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise RecipeError(f"a range needs low < high, got {self.low}, {self.high}")

    def grid(self) -> list[float]:
        """From low to high, both included."""
        step = (self.high - self.low) / max(1, self.points - 1)
        return [self.low + i * step for i in range(self.points)]


@dataclass(frozen=True)
class Whole:
    """A whole number from low to high, both included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise RecipeError(f"a range needs low < high, got {self.low}, {self.high}")

    def grid(self) -> list[int]:
        """All of them."""
        return list(range(self.low, self.high + 1))


@dataclass(frozen=True)
class Choice:
    """One of several values: numbers, words, None, parts, or lists of parts."""

    values: Sequence[Any]

    def __post_init__(self) -> None:
        if not self.values:
            raise RecipeError("a choice needs at least one value")

    def grid(self) -> list[str]:
        """The values, as text that a study can store."""
        return [encode(value) for value in self.values]


Range = LogUniform | Uniform | Whole | Choice
Space = Mapping[str, Range]


def encode(value: Any) -> str:
    """A value of a choice as text."""
    return json.dumps(to_plain(value), sort_keys=True)


def decode(text: str) -> Any:
    """What `encode` wrote."""
    return from_plain(json.loads(text))


def suggest(trial: Any, space: Space, recipe: Recipe) -> Recipe:
    """The recipe that an optuna trial draws from the space."""
    for path, values in space.items():
        match values:
            case LogUniform(low, high):
                value: Any = trial.suggest_float(path, low, high, log=True)
            case Uniform(low, high):
                value = trial.suggest_float(path, low, high)
            case Whole(low, high):
                value = trial.suggest_int(path, low, high)
            case Choice():
                value = decode(trial.suggest_categorical(path, values.grid()))
        recipe = recipe.replace(**{path: value})
    return recipe


def apply(recipe: Recipe, space: Space, parameters: Mapping[str, Any]) -> Recipe:
    """The recipe of stored parameters."""
    for path, stored in parameters.items():
        value = decode(stored) if isinstance(space[path], Choice) else stored
        recipe = recipe.replace(**{path: value})
    return recipe


def check(space: Space, recipe: Recipe) -> None:
    """Raise RecipeError for a path that the recipe lacks, or a value that doesn't fit there."""
    if not space:
        raise RecipeError("the search space is empty")
    for path, values in space.items():
        first = values.values[0] if isinstance(values, Choice) else values.grid()[0]
        recipe.replace(**{path: first})


def full_grid(space: Space) -> Iterator[dict[str, Any]]:
    """Every combination of the grids, as a study stores it."""
    for values in itertools.product(*(values.grid() for values in space.values())):
        yield dict(zip(space, values, strict=True))


def grid_size(space: Space) -> int:
    """How many settings a grid over the space has."""
    return math.prod(len(values.grid()) for values in space.values())
