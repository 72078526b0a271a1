"""The categories in the body of `PUT /v1/indexes/{name}`: JSON, or a file in any of our formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from starlette.datastructures import FormData, ImmutableMultiDict, MultiDict, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from indexer import Category, LayoutOptions, category_from_json, parse_categories
from indexer.category import as_categories
from service.classify_options import parameter_error, split_templates
from service.default_index import DEFAULT_TEMPLATES
from service.errors import ParameterError, RequestError, UnsupportedMediaError
from service.index_versions import layout_options
from service.schemas import IndexBody
from service.uploads import parse_json

# A bare file says by its media type what it holds.
_ENDINGS = {
    "text/plain": ".txt",
    "text/csv": ".csv",
    "application/x-ndjson": ".jsonl",
    "application/jsonl": ".jsonl",
}
_FIELDS = ("templates", "recall", "memory_mb")  # beside the file
_MAX_FIELD_BYTES = 1_000_000


@dataclass(frozen=True)
class CategoryUpload:
    """Checked categories, the templates for their prompts, and the wishes for a large index."""

    categories: list[Category]
    templates: str | list[str]
    options: LayoutOptions


async def read_category_upload(request: Request) -> CategoryUpload:
    """Read and check the body.

    Raises: RequestError, ParameterError, UnsupportedMediaError, CategoryError.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _from_form(request)
    if kind in _ENDINGS:
        categories = parse_categories(await request.body(), f"body{_ENDINGS[kind]}")
        return _upload(categories, request.query_params)
    if kind in ("", "application/json"):
        return _from_json(parse_json(await request.body()))
    raise UnsupportedMediaError(
        f"can't read a body of type {kind}; send JSON, a form with 'file', or a bare file as "
        + ", ".join(_ENDINGS)
    )


def read_categories_json(items: list[str | dict[str, Any]], *, param: str) -> list[Category]:
    """Labels or objects as categories. Raises: CategoryError."""
    return as_categories(
        category_from_json(item, where=f"{param}[{position}]")
        for position, item in enumerate(items)
    )


def _from_json(body: dict[str, Any]) -> CategoryUpload:
    try:
        asked = IndexBody.model_validate(body)
    except ValidationError as error:
        raise parameter_error(error, IndexBody) from error
    categories = read_categories_json(asked.categories, param="categories")
    options = layout_options(asked.recall, asked.memory_mb)
    return CategoryUpload(categories, _templates(asked.templates), options)


async def _from_form(request: Request) -> CategoryUpload:
    try:
        form = await request.form(max_files=1, max_part_size=_MAX_FIELD_BYTES)
    except HTTPException as error:
        raise RequestError(f"the form can't be read: {error.detail}") from error
    try:
        return await _from_fields(form)
    finally:
        await form.close()


async def _from_fields(form: FormData) -> CategoryUpload:
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise ParameterError("the form has no file under 'file'", param="file")
    categories = parse_categories(await file.read(), file.filename or "upload")
    texts = [(name, text) for name, text in form.multi_items() if isinstance(text, str)]
    return _upload(categories, MultiDict(texts))


def _upload(categories: list[Category], fields: ImmutableMultiDict[str, str]) -> CategoryUpload:
    """What stands beside a file, in a form or in the URL."""
    unknown = sorted(set(fields) - set(_FIELDS))
    if unknown:
        raise ParameterError(
            f"there is no field {unknown[0]!r}; there are {', '.join(_FIELDS)}", param=unknown[0]
        )
    templates = fields.getlist("templates")
    options = layout_options(_number(fields, "recall"), _number(fields, "memory_mb"))
    chosen = _templates(templates[0] if len(templates) == 1 else templates or None)
    return CategoryUpload(categories, chosen, options)


def _number(fields: ImmutableMultiDict[str, str], name: str) -> float | None:
    text = fields.get(name)
    try:
        return None if text is None else float(text)
    except ValueError as error:
        raise ParameterError(f"{name}: {text!r} is no number", param=name) from error


def _templates(value: str | list[str] | None) -> str | list[str]:
    try:
        return DEFAULT_TEMPLATES if value is None else split_templates(value)
    except ValueError as error:
        raise ParameterError(f"templates: {error}", param="templates") from error
