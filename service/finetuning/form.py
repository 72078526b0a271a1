"""A form whose large files wait on the data folder's own disk.

Starlette spools them to the system's temporary folder, which may be small, or memory, or not there
at all in a container; and nothing of a job shall ever be written outside the data folder.
"""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.errors import RequestError


class _Parser(MultiPartParser):
    """folder: where a file of more than a megabyte goes; it has no name there."""

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
