"""The body of `POST /v1/finetunes`, looked through and laid out before anything is queued.

A form with `archive` (a zip of class folders), or with `manifest` (CSV or JSONL) and `files`, or
with `folder`; a bare zip; or JSON with `folder`. Images are written into the data folder and
nowhere else, under names that are ours.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Annotated, Any, BinaryIO, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from starlette.datastructures import FormData, MultiDict, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from indexer.errors import StorageError
from service.errors import ParameterError, RequestError, UnsupportedMediaError
from service.finetuning.images import lay_out
from service.finetuning.runner import STAGED
from service.finetuning.sources import Offered, look_through, match_table, walk_folder
from service.inference.engine import Engine
from service.serving.assignments import NONE
from service.serving.options import parameter_error, parse_json, split_templates, unfold
from service.settings import Settings
from training.names import MethodName


class FinetuneOptions(BaseModel):
    """The parameters of `POST /v1/finetunes` beside the images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: str | None = Field(None, description="index that it is for (default: the server's)")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = Field(
        None, description="adapter that gets a new version (default: called like the index)"
    )
    method: MethodName = Field("auto", description="how to train; auto picks by the amount of data")
    val: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the images held out to judge it; default: folds below 30 images a "
        "class, else 0.2",
    )
    views: int = Field(4, ge=1, le=64, description="variants of each training image")
    templates: Annotated[str | list[str], BeforeValidator(split_templates)] | None = Field(
        None, description="prompt templates of the classes (default: the index's)"
    )
    seed: int = Field(0, ge=0, description="of everything random")
    budget: str | None = Field(
        None, description="time for the checklist before training, such as 2min"
    )
    recipe: str | None = Field(None, description="a recipe as YAML, with method=head")
    skip_bad: bool = Field(False, description="leave out files that can't be read")
    callback_url: str | None = Field(None, description="address to tell when it has ended")

    @field_validator("name")
    @classmethod
    def _is_not_reserved(cls, value: str | None) -> str | None:
        if value == NONE:
            raise ValueError(f"{NONE!r} stands for no adapter; choose another name")
        return value


def read_finetune_options(fields: Mapping[str, Any]) -> FinetuneOptions:
    """Checked options. Raises: ParameterError naming the first one that can't be used."""
    try:
        return FinetuneOptions.model_validate(fields)
    except ValidationError as error:
        raise parameter_error(error, FinetuneOptions) from error


class _Parser(MultiPartParser):
    """Starlette's parser, with files of more than a megabyte in `folder`, where they have no name.

    Starlette itself writes them to the system's temporary folder. That may be small, in memory, or
    missing in a container; and nothing of a job may be written outside the data folder.
    """

    folder: Path

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        upload = self._current_part.file
        if upload is not None:
            size = self.spool_max_size
            spool = SpooledTemporaryFile(max_size=size, dir=str(self.folder))  # noqa: SIM115
            self._files_to_close_on_error.append(spool)
            upload.file.close()
            upload.file = cast(BinaryIO, spool)


async def read_form(
    request: Request, *, folder: Path, max_files: int, max_part_size: int
) -> FormData:
    """Read a multipart form; close it when it isn't needed any more.

    Raises: RequestError.
    """
    async with aclosing(request.stream()) as stream:
        parser = _Parser(request.headers, stream, max_files=max_files, max_part_size=max_part_size)
        parser.folder = folder
        try:
            return await parser.parse()
        except MultiPartException as error:
            raise RequestError(f"the form can't be read: {error.message}") from error


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
    return await engine.run(partial(_lay_out, intake, target, settings))


def _lay_out(intake: Intake, target: Path, settings: Settings) -> int:
    offered = intake.offer()
    try:
        return lay_out(
            offered, target, max_pixels=settings.max_pixels, skip_bad=intake.options.skip_bad
        )
    except OSError as error:
        raise StorageError(f"can't write {settings.finetunes}: {error.strerror}") from error


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
    table, files = by_name["manifest"][0], by_name["files"]
    return Intake(options, partial(_match_uploads, table, files))


def _archive(file: BinaryIO, settings: Settings) -> Offer:
    return partial(look_through, file, max_bytes=settings.finetune_unpacked_bytes)


def _folder(place: str, settings: Settings) -> Offer:
    most = settings.finetune_unpacked_bytes
    return partial(walk_folder, place, settings.finetune_roots, max_bytes=most)


def _match_uploads(table: UploadFile, files: list[UploadFile]) -> Offered:
    """The uploaded files under the labels that the table gives them."""
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
