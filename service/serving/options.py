"""The parameters of a request, whichever part of it they came from: URL, form or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from indexer.ranking.answer import Policy
from service.errors import ParameterError, RequestError

if TYPE_CHECKING:
    from starlette.datastructures import ImmutableMultiDict

_SEPARATOR = ","


def split_labels(value: Any) -> Any:
    """Labels from a form or a URL: a JSON list, one comma-separated string, or a list as it is."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError("starts like a JSON list, but isn't one") from error
    return [label for label in value.split(_SEPARATOR) if label.strip()]


def split_templates(value: Any) -> Any:
    """A set's name stays a string; a single template becomes a list of one."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        return split_labels(value)
    return [value] if isinstance(value, str) and "{}" in value else value


class ClassifyOptions(BaseModel):
    """The parameters of `POST /v1/classify` beside the images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: str | None = Field(None, description="index to compare with (default: the server's)")
    labels: Annotated[list[str], BeforeValidator(split_labels), Field(min_length=1)] | None = Field(
        None, description="ad-hoc labels instead of an index: a list, or separated by commas"
    )
    templates: Annotated[str | list[str], BeforeValidator(split_templates)] | None = Field(
        None, description="prompt templates for ad-hoc labels: a set's name, or own ones with {}"
    )
    adapter: str | None = Field(
        None, description="NAME, NAME@VERSION or none (default: the index's own adapter)"
    )
    top_k: int = Field(5, ge=1, le=1000, description="matches for each image")
    min_probability: float | None = Field(
        None,
        ge=0,
        le=1,
        description="least probability to be believed (default: 0, with mode=multi 0.5)",
    )
    min_score: float = Field(-1.0, ge=-1, le=1, description="below this cosine, too")
    mode: Literal["single", "multi"] = Field(
        "single", description="one category an image, or every one that passes"
    )
    precision: float | None = Field(
        None, ge=0, le=1, description="wanted share of right answers, of a calibrated index"
    )

    @model_validator(mode="after")
    def _labels_or_index(self) -> ClassifyOptions:
        if self.index is not None and self.labels is not None:
            raise ValueError("give index or labels, not both")
        if self.templates is not None and self.labels is None:
            raise ValueError("templates go with labels; an index has its own")
        if self.adapter is not None and self.labels is not None:
            raise ValueError("an adapter goes with an index, not with labels")
        return self

    def policy(self) -> Policy:
        """What has to hold for a match to be believed. Raises: PolicyError."""
        return Policy(
            mode=self.mode,
            min_probability=self.min_probability,
            min_score=self.min_score,
            precision=self.precision,
        )


def read_options(fields: Mapping[str, Any], *, max_labels: int) -> ClassifyOptions:
    """Checked options. Raises: ParameterError naming the first one that can't be used."""
    try:
        options = ClassifyOptions.model_validate(fields)
    except ValidationError as error:
        raise parameter_error(error, ClassifyOptions) from error
    if options.labels is not None and len(options.labels) > max_labels:
        raise ParameterError(
            f"{len(options.labels)} labels at once; the most is {max_labels}: build an index of "
            "them instead",
            param="labels",
        )
    return options


def parameter_error(error: ValidationError, model: type[BaseModel]) -> ParameterError:
    """Pydantic's first complaint as one line."""
    first = error.errors(include_url=False)[0]
    param = str(first["loc"][0]) if first["loc"] else None
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        known = ", ".join(model.model_fields)
        return ParameterError(f"there is no parameter {param!r}; there are {known}", param=param)
    prefix = f"{param}: " if param else ""
    return ParameterError(f"{prefix}{message[:1].lower()}{message[1:]}", param=param)


def parse_json(body: bytes) -> dict[str, Any]:
    """A JSON object. Raises: RequestError."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body isn't JSON: {error}") from error
    if not isinstance(value, dict):
        raise RequestError("the body must be a JSON object")
    return value


def unfold(items: ImmutableMultiDict[str, str]) -> dict[str, Any]:
    """Fields by name; a list where a name was given several times."""
    fields: dict[str, Any] = {}
    for name in items:
        values = items.getlist(name)
        fields[name] = values[0] if len(values) == 1 else values
    return fields
