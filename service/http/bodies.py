"""The bodies that carry images or categories, which FastAPI can't describe by one type.

Images come as multipart files, a raw body, or JSON with base64 or data URIs. Never as a URL: a
server that fetches what a stranger names can be sent to addresses that only it can reach.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from starlette.datastructures import FormData, ImmutableMultiDict, MultiDict, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from indexer import Category, LayoutOptions, category_from_json, parse_categories
from indexer.categories.category import as_categories
from service.errors import ParameterError, RequestError, UnsupportedMediaError
from service.http.schemas import IndexBody
from service.serving.core import DEFAULT_TEMPLATES, layout_options
from service.serving.options import parameter_error, parse_json, split_templates, unfold

_JSON = "application/json"
_MULTIPART = "multipart/form-data"


# A body whose bytes tell what it is. The third is what curl and urllib say of any bytes that they
# are told nothing about.
_BARE = ("", "application/octet-stream", "application/x-www-form-urlencoded")
_URL_STARTS = ("http:", "https:", "ftp:", "file:", "s3:", "gs:")


# One text field of a form, such as a long list of labels.
_MAX_FIELD_BYTES = 4_000_000
_MAX_FIELDS = 1_000
_BLANKS = bytes.maketrans(b"", b"")


@dataclass(frozen=True)
class Upload:
    """One image as it came; name: what the client calls it, or None."""

    name: str | None
    data: bytes


@dataclass(frozen=True)
class ImageRequest:
    """The images and the parameters beside them, not yet checked.

    fields: from the query and the body together; lists where a name was given several times
    """

    images: tuple[Upload, ...]
    fields: Mapping[str, Any]


async def read_images(request: Request, *, max_images: int, needed: bool = True) -> ImageRequest:
    """Read a request that carries images.

    needed: whether a form or JSON object without any is a mistake
    Raises: RequestError, ParameterError, UnsupportedMediaError.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    query = unfold(request.query_params)
    if kind == _MULTIPART:
        images, fields = await _from_form(request, max_images)
        if needed and not images:
            raise ParameterError("the form has no file under 'files'", param="files")
    elif kind == _JSON or kind.endswith("+json"):
        images, fields = _from_json(await request.body())
        if needed and not images:
            raise ParameterError(
                "the body needs 'image' (base64 or a data URI) or a list of them under 'images'",
                param="images",
            )
    elif kind in _BARE or kind.startswith("image/"):
        data = await request.body()
        images, fields = [Upload(None, data)] if data or needed else [], {}
    else:
        raise UnsupportedMediaError(
            f"can't read a body of type {kind}; send multipart/form-data with 'files', an image's "
            "bytes, or JSON with 'images'"
        )
    if len(images) > max_images:
        raise ParameterError(
            f"{len(images)} images in one request; the most is {max_images}", param="images"
        )
    twice = sorted(set(query) & set(fields))
    if twice:
        raise ParameterError(
            f"{twice[0]} stands in the URL and in the body; leave one out", param=twice[0]
        )
    return ImageRequest(tuple(images), {**query, **fields})


def decode_base64_image(text: object, *, param: str) -> bytes:
    """The bytes of an image in base64, bare or as a data URI. Raises: ParameterError."""
    if not isinstance(text, str):
        raise ParameterError(f"{param} must be a string of base64", param=param)
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise ParameterError(f"{param} is a data URI without ;base64, in it", param=param)
    elif text.lower().startswith(_URL_STARTS):
        raise ParameterError(
            f"{param} is a URL; this server never fetches one: send the image's bytes in base64",
            param=param,
        )
    try:
        packed = text.encode("ascii").translate(_BLANKS, b" \t\r\n")
        if b"-" in packed or b"_" in packed:
            packed = packed.replace(b"-", b"+").replace(b"_", b"/")
        padding = b"=" * (-len(packed) % 4)
        return base64.b64decode(packed + padding, validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise ParameterError(f"{param} isn't base64 ({error})", param=param) from error


async def _from_form(request: Request, max_images: int) -> tuple[list[Upload], dict[str, Any]]:
    try:
        form = await request.form(
            max_files=max_images, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES
        )
    except HTTPException as error:
        raise RequestError(f"the form can't be read: {error.detail}") from error
    images: list[Upload] = []
    texts: list[tuple[str, str]] = []
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if name not in ("files", "file", "image", "images"):
                    raise ParameterError(f"files belong under 'files', not {name!r}", param=name)
                images.append(Upload(value.filename or None, await value.read()))
            else:
                texts.append((name, value))
    finally:
        await form.close()
    return images, unfold(MultiDict(texts))


def _from_json(body: bytes) -> tuple[list[Upload], dict[str, Any]]:
    fields = parse_json(body)
    if "image" in fields and "images" in fields:
        raise ParameterError("give 'image' or 'images', not both", param="images")
    if "image" in fields:
        return [Upload(None, decode_base64_image(fields.pop("image"), param="image"))], fields
    listed = fields.pop("images", [])
    if not isinstance(listed, list):
        raise ParameterError("images must be a list of images in base64", param="images")
    images = [
        Upload(None, decode_base64_image(item, param=f"images[{position}]"))
        for position, item in enumerate(listed)
    ]
    return images, fields


# A bare file says by its media type what it holds.
_ENDINGS = {
    "text/plain": ".txt",
    "text/csv": ".csv",
    "application/x-ndjson": ".jsonl",
    "application/jsonl": ".jsonl",
}
_FIELDS = ("templates", "recall", "memory_mb")  # beside the file
_CATEGORY_UPLOAD_MAX_FIELD_BYTES = 1_000_000


@dataclass(frozen=True)
class CategoryUpload:
    """The body of `PUT /v1/indexes/{name}`, JSON or a file in any of our formats, checked.

    templates: for the categories' prompts; options: for the layout of a large index
    """

    categories: list[Category]
    templates: str | list[str]
    options: LayoutOptions


async def read_category_upload(request: Request) -> CategoryUpload:
    """Read and check the body.

    Raises: RequestError, ParameterError, UnsupportedMediaError, CategoryError.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _category_upload_from_form(request)
    if kind in _ENDINGS:
        categories = parse_categories(await request.body(), f"body{_ENDINGS[kind]}")
        return _upload(categories, request.query_params)
    if kind in ("", "application/json"):
        return _category_upload_from_json(parse_json(await request.body()))
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


def _category_upload_from_json(body: dict[str, Any]) -> CategoryUpload:
    try:
        asked = IndexBody.model_validate(body)
    except ValidationError as error:
        raise parameter_error(error, IndexBody) from error
    categories = read_categories_json(asked.categories, param="categories")
    options = layout_options(asked.recall, asked.memory_mb)
    return CategoryUpload(categories, _templates(asked.templates), options)


async def _category_upload_from_form(request: Request) -> CategoryUpload:
    try:
        form = await request.form(max_files=1, max_part_size=_CATEGORY_UPLOAD_MAX_FIELD_BYTES)
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
