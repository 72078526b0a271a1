"""What a user wants to recognise: a label, the words that stand for it, and what belongs to it."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from indexer.errors import CategoryError

JSON: TypeAlias = bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"] | None

# Longer than any label that a text tower of 77 tokens can read, short enough for a web page.
MAX_NAME = 500
# More sentences than any published prompt ensemble has.
MAX_PROMPTS = 1000
_KEYS = ("label", "prompts", "synonyms", "group", "background", "metadata")


@dataclass(frozen=True)
class Category:
    """One thing to recognise.

    label: what the answer says
    prompts: own sentences, averaged into one vector; None: the index's templates around the label
    synonyms: other names of the same thing, each with a vector of its own; the best one counts
    group: a coarser name; the probabilities of a group's categories add up
    background: takes part in the contest, but when it wins the answer is `unknown`
    metadata: JSON that is returned with every match

    Raises: CategoryError for an empty or unprintable name, no prompts, or metadata that isn't JSON.
    """

    label: str
    prompts: tuple[str, ...] | None = None
    synonyms: tuple[str, ...] = ()
    group: str | None = None
    background: bool = False
    metadata: Mapping[str, JSON] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", clean_name(self.label, what="a label"))
        if self.prompts is not None:
            object.__setattr__(self, "prompts", self._sentences())
        names = tuple(
            clean_name(name, what=f"a synonym of {self.label!r}") for name in self.synonyms
        )
        object.__setattr__(self, "synonyms", names)
        if self.group is not None:
            group = clean_name(self.group, what=f"the group of {self.label!r}")
            object.__setattr__(self, "group", group)
        _check_metadata(self.label, self.metadata)

    def _sentences(self) -> tuple[str, ...]:
        if isinstance(self.prompts, str) or not self.prompts:
            raise CategoryError(
                f"{self.label!r}: prompts must be a list of one or more sentences; leave them out "
                "to use the templates",
                param="prompts",
            )
        if len(self.prompts) > MAX_PROMPTS:
            raise CategoryError(
                f"{self.label!r} has {len(self.prompts)} prompts; the most is {MAX_PROMPTS}",
                param="prompts",
            )
        what = f"a prompt of {self.label!r}"
        return tuple(
            clean_name(prompt, what=what, longest=10 * MAX_NAME) for prompt in self.prompts
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The label, then its synonyms: as many as the category has vectors."""
        return (self.label, *self.synonyms)


def clean_name(name: object, *, what: str, longest: int = MAX_NAME) -> str:
    """`name` in Unicode's composed form, with runs of white space as one space.

    Raises: CategoryError if it isn't a string, is empty, is longer than `longest` characters or
    holds control characters or unpaired surrogates.
    """
    if not isinstance(name, str):
        raise CategoryError(f"{what} must be a string, not {type(name).__name__}", param="label")
    clean = " ".join(unicodedata.normalize("NFC", name).split())
    if not clean:
        raise CategoryError(f"{what} is empty; give it a name or take it out", param="label")
    if len(clean) > longest:
        raise CategoryError(
            f"{what} has {len(clean)} characters ({clean[:40]!r}...); the most is {longest}",
            param="label",
        )
    # ASCII text can only hold controls below 0x20 or 0x7f; isprintable is the quick way to know.
    if not clean.isprintable() and any(
        unicodedata.category(character) in ("Cc", "Cs") for character in clean
    ):
        raise CategoryError(f"{what} holds control characters: {clean[:40]!r}", param="label")
    return clean


def category_from_json(value: JSON, *, where: str) -> Category:
    """A category from a label alone or an object with the keys of `Category`.

    where: how the error names the place ("line 3", "categories[2]").
    Raises: CategoryError.
    """
    if isinstance(value, str):
        value = {"label": value}
    if not isinstance(value, Mapping):
        raise CategoryError(
            f"{where} must be a label or an object with a label", param="categories"
        )
    unknown = sorted(set(value) - set(_KEYS))
    if unknown:
        raise CategoryError(
            f"{where} has the unknown key {unknown[0]!r}; put data of your own under 'metadata' "
            f"(known: {', '.join(_KEYS)})",
            param="categories",
        )
    if "label" not in value:
        raise CategoryError(f"{where} has no 'label'", param="categories")
    background = value.get("background", False)
    group = value.get("group")
    metadata = value.get("metadata")
    if not isinstance(background, bool):
        raise CategoryError(f"{where}: 'background' must be true or false", param="categories")
    if group is not None and not isinstance(group, str):
        raise CategoryError(f"{where}: 'group' must be a string", param="categories")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise CategoryError(f"{where}: 'metadata' must be an object", param="categories")
    prompts = value.get("prompts")
    try:
        return Category(
            label=value["label"],  # type: ignore[arg-type]  # checked by Category itself
            prompts=None if prompts is None else _strings(prompts, "prompts"),
            synonyms=_strings(value.get("synonyms") or (), "synonyms"),
            group=group,
            background=background,
            metadata=dict(metadata or {}),
        )
    except CategoryError as error:
        raise CategoryError(f"{where}: {error.message}", param=error.param) from error


def category_to_json(category: Category) -> dict[str, JSON]:
    """The object that `category_from_json` reads, without the keys that hold nothing."""
    value: dict[str, JSON] = {"label": category.label}
    if category.prompts is not None:
        value["prompts"] = list(category.prompts)
    if category.synonyms:
        value["synonyms"] = list(category.synonyms)
    if category.group is not None:
        value["group"] = category.group
    if category.background:
        value["background"] = True
    if category.metadata:
        value["metadata"] = dict(category.metadata)
    return value


def as_categories(categories: Iterable[str | Category]) -> list[Category]:
    """Labels or categories as categories, every name of which means one label.

    Raises: CategoryError for an empty list or a name that occurs twice.
    """
    if isinstance(categories, str):
        raise CategoryError(
            "categories must be a list of labels, not one string", param="categories"
        )
    listed = [Category(item) if isinstance(item, str) else item for item in categories]
    if not listed:
        raise CategoryError("there are no categories; give at least one label", param="categories")
    check_unique(listed)
    return listed


def check_unique(categories: Iterable[Category]) -> None:
    """Raises: CategoryError if a label or synonym occurs twice."""
    owners: dict[str, tuple[int, str]] = {}
    for position, category in enumerate(categories):
        for name in category.names:
            other = owners.setdefault(name, (position, category.label))
            if other[0] != position:
                raise _occurs_twice(name, category.label, other[1])
        if category.synonyms and len(set(category.names)) < len(category.names):
            raise CategoryError(
                f"{category.label!r} lists the same name twice; take one out", param="categories"
            )


def _occurs_twice(name: str, label: str, other: str) -> CategoryError:
    if label == other:
        return CategoryError(f"the label {name!r} occurs twice; take one out", param="categories")
    return CategoryError(
        f"the name {name!r} stands for both {other!r} and {label!r}; take one out",
        param="categories",
    )


def _strings(value: object, key: str) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise CategoryError(f"'{key}' must be a list of strings", param="categories")
    return tuple(value)


def _check_metadata(label: str, metadata: Mapping[str, JSON]) -> None:
    if not metadata:
        return
    if not isinstance(metadata, Mapping) or not all(isinstance(key, str) for key in metadata):
        raise CategoryError(
            f"{label!r}: metadata must be an object with string keys", param="metadata"
        )
    try:
        json.dumps(metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CategoryError(f"{label!r}: metadata isn't JSON: {error}", param="metadata") from error
