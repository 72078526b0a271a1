"""Local files and whatever fsspec opens, behind the few questions that a batch job asks."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from models.extras import how_to_install
from service.batch.errors import InputError, ItemError, StorageUnreachableError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
_EXTRAS |= {"az": "az", "abfs": "az", "abfss": "az", "adl": "az", "http": "http", "https": "http"}
# What clients of remote storage raise when it can't be reached or asked, and that is no OSError.
# By name: only what a run has imported can have raised one.
_CLIENT_ERRORS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("aiohttp", "ClientError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("azure.core.exceptions", "AzureError"),
)
_MAX_BYTES = 256 << 20  # of one image file


def is_remote(place: str) -> bool:
    """Whether a place is a URL; a local path never holds "://"."""
    return "://" in place


def file_system(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system behind a URL, and the path in it. Raises: InputError."""
    from fsspec.core import url_to_fs

    protocol = url.partition("://")[0]
    try:
        found: tuple[AbstractFileSystem, str] = url_to_fs(url)
        return found
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        advice = how_to_install(extra) if extra else str(error)
        raise InputError(f"{protocol}:// needs a package: {advice}", param="input") from error
    except ValueError as error:
        raise InputError(f"can't open {url}: {error}", param="input") from error


@contextmanager
def reaching(place: str) -> Iterator[None]:
    """Tell that storage can't be reached, whichever client finds out.

    Raises: StorageUnreachableError.
    """
    try:
        yield
    except (ConnectionError, TimeoutError) as error:
        raise _unreachable(place, error) from error
    except _client_errors() as error:  # looked up only now that something was raised
        raise _unreachable(place, error) from error


@contextmanager
def asking(url: str) -> Iterator[None]:
    """As `reaching`, where what storage refuses concerns an input, not an image.

    Raises: InputError, StorageUnreachableError.
    """
    try:
        with reaching(url):
            yield
    except OSError as error:
        reason = (error.strerror or str(error) or type(error).__name__).lower()
        raise InputError(f"can't list {url}: {reason}", param="input") from error


def read_bytes(place: str, start: int = 0, size: int | None = None) -> bytes:
    """Some bytes of a file, or all of them.

    Raises: ItemError where it is missing, no regular file, too large or can't be read;
    StorageUnreachableError.
    """
    try:
        if is_remote(place):
            return _read_remote(place, start, size)
        return _read_local(place, start, size)
    except OSError as error:
        reason = (error.strerror or str(error) or type(error).__name__).lower()
        raise ItemError(f"can't be read: {reason}") from error


@contextmanager
def opened(place: str) -> Iterator[IO[bytes]]:
    """A file to read from, with seeking. Raises: InputError, StorageUnreachableError."""
    try:
        if is_remote(place):
            files, path = file_system(place)
            with reaching(place), files.open(path, "rb") as file:
                yield file
        else:
            with Path(place).open("rb") as file:
                yield file
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"can't read {place}: {reason}", param="input") from error


def _read_local(place: str, start: int, size: int | None) -> bytes:
    # A FIFO or a device would wait for ever; opening one without blocking doesn't.
    descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ItemError("can't be read: it is no regular file")
        wanted = status.st_size - start if size is None else size
        _check_size(wanted)
        file.seek(start)
        return file.read(wanted)


def _read_remote(place: str, start: int, size: int | None) -> bytes:
    files, path = file_system(place)
    with reaching(place):
        wanted = files.size(path) if size is None else size
        if wanted is not None:
            _check_size(wanted)
        stop = None if size is None else start + size
        data: bytes = files.cat_file(path, start=start or None, end=stop)
        return data


def _check_size(size: int) -> None:
    if size > _MAX_BYTES:
        raise ItemError(f"the file has {size:,} bytes, more than the {_MAX_BYTES:,} allowed")


def _client_errors() -> tuple[type[Exception], ...]:
    modules = ((sys.modules.get(name), kind) for name, kind in _CLIENT_ERRORS)
    found: list[Any] = [getattr(module, kind) for module, kind in modules if module is not None]
    return tuple(found)


def _unreachable(place: str, error: Exception) -> StorageUnreachableError:
    return StorageUnreachableError(
        f"{place} can't be reached ({error or type(error).__name__}); run the same command again "
        "to go on where it stopped"
    )
