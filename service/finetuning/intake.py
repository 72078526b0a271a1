"""The body of `POST /v1/finetunes`, looked through and laid out before anything is queued.

A form with `archive` (a zip of class folders), or with `manifest` (CSV or JSONL) and `files`, or
with `folder`; a bare zip; or JSON with `folder`. Images are written into the data folder and
nowhere else, under names that are ours.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from starlette.datastructures import FormData, MultiDict, UploadFile
from starlette.requests import Request

from indexer.errors import StorageError
from service.engine import Engine
from service.errors import ParameterError, UnsupportedMediaError
from service.finetuning.archive import look_through
from service.finetuning.folder import walk_folder
from service.finetuning.form import read_form
from service.finetuning.images import lay_out
from service.finetuning.items import Offered
from service.finetuning.options import FinetuneOptions, read_finetune_options
from service.finetuning.runner import STAGED
from service.finetuning.table import match_table
from service.settings import Settings
from service.uploads import parse_json, unfold

_MULTIPART = "multipart/form-data"
_ZIP = ("application/zip", "application/x-zip-compressed")
_MOST_FILES = 1000  # of a form; an archive may hold more
_MAX_FIELD_BYTES = 1_000_000
_SOURCES = ("archive", "manifest", "folder")
Offer = Callable[[], Offered]


@dataclass(frozen=True)
class Intake:
    """Images that wait to be laid out; offer: looks through them, which takes time."""

    options: FinetuneOptions
    offer: Offer


@asynccontextmanager
async def read_finetune(
    request: Request, settings: Settings, folder: Path
) -> AsyncIterator[Intake]:
    """Read the body; what was uploaded is there until the `with` block ends.

    folder: where it is kept meanwhile
    Raises: RequestError, ParameterError, UnsupportedMediaError, FolderError.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    query = unfold(request.query_params)
    if kind == _MULTIPART:
        form = await read_form(
            request, folder=folder, max_files=_MOST_FILES, max_part_size=_MAX_FIELD_BYTES
        )
        try:
            yield _from_form(form, query, settings)
        finally:
            await form.close()
    elif kind in _ZIP:
        path = folder / "upload.zip"
        with path.open("w+b") as file:
            async for chunk in request.stream():
                file.write(chunk)
            file.seek(0)
            yield Intake(read_finetune_options(query), _archive(file, settings))
        path.unlink()
    elif kind == "application/json":
        fields = {**query, **parse_json(await request.body())}
        place = fields.pop("folder", None)
        if not isinstance(place, str):
            raise ParameterError("the body needs 'folder', or send a form or a zip", param="folder")
        yield Intake(read_finetune_options(fields), _folder(place, settings))
    else:
        raise UnsupportedMediaError(
            f"can't read a body of type {kind or 'none'}; send a form with 'archive', a zip as "
            "application/zip, or JSON with 'folder'"
        )


async def store_images(intake: Intake, target: Path, settings: Settings, engine: Engine) -> int:
    """Lay the images out under `target`; returns their number.

    Raises: UploadError naming every offender, FolderError, QueueFullError, StorageError.
    """

    def work() -> int:
        offered = intake.offer()
        try:
            return lay_out(
                offered,
                target,
                max_pixels=settings.max_pixels,
                skip_bad=intake.options.skip_bad,
            )
        except OSError as error:
            raise StorageError(f"can't write {settings.finetunes}: {error.strerror}") from error

    return await engine.run(work)


@asynccontextmanager
async def staged(settings: Settings) -> AsyncIterator[Path]:
    """A folder beside those of the jobs, gone after the `with` block unless it was renamed."""
    folder = settings.finetunes / f"{STAGED}{secrets.token_hex(8)}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _from_form(form: FormData, query: dict[str, Any], settings: Settings) -> Intake:
    texts = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
    uploads = [(name, value) for name, value in form.multi_items() if isinstance(value, UploadFile)]
    fields = {**query, **unfold(MultiDict(texts))}
    folder = fields.pop("folder", None)
    by_name: dict[str, list[UploadFile]] = {"archive": [], "manifest": [], "files": []}
    for name, upload in uploads:
        if name not in by_name:
            raise ParameterError(f"there is no file field {name!r}", param=name)
        by_name[name].append(upload)
    given = [name for name in _SOURCES if (folder if name == "folder" else by_name[name])]
    if len(given) != 1:
        raise ParameterError(
            "give one of 'archive', 'manifest' (with 'files') and 'folder'", param="archive"
        )
    options = read_finetune_options(fields)
    if folder is not None:
        return Intake(options, _folder(str(folder), settings))
    if by_name["archive"]:
        return Intake(options, _archive(by_name["archive"][0].file, settings))
    return Intake(options, _table(by_name["manifest"][0], by_name["files"]))


def _archive(file: BinaryIO, settings: Settings) -> Offer:
    return lambda: look_through(file, max_bytes=settings.finetune_unpacked_bytes)


def _folder(place: str, settings: Settings) -> Offer:
    roots, most = settings.finetune_roots, settings.finetune_unpacked_bytes
    return lambda: walk_folder(place, roots, max_bytes=most)


def _table(table: UploadFile, files: list[UploadFile]) -> Offer:
    def offer() -> Offered:
        readers: dict[str, Callable[[], bytes]] = {}
        twice = []
        for file in files:
            name = file.filename or ""
            if name in readers:
                twice.append(f"{name!r} was uploaded twice")
            readers[name] = file.file.read
        offered = match_table(table.file.read(), table.filename or "manifest", readers)
        offered.problems += twice
        return offered

    return offer
