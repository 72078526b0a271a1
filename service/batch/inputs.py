"""The first stage of a batch job: every image that the inputs name, without reading any.

`list_items` is the way in: folders, patterns, lists, tables, shards and URLs become `Item`s, in the
order of the inputs. An item says where an image's bytes lie.
"""

from __future__ import annotations

import csv
import glob
import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from models.images import has_image_suffix
from service.batch.errors import InputError
from service.batch.storage import asking, file_system, is_remote, opened


@dataclass(frozen=True)
class Item:
    """Where an image's bytes lie.

    name: what its row calls it
    place: a local path, or a URL that fsspec opens
    start, size: the bytes of `place` that are the image; size None for all of it
    error: why there is nothing to read, where the listing found that out
    """

    name: str
    place: str
    start: int = 0
    size: int | None = None
    error: str | None = None


# ---- Lists of places: lines of text, columns of CSV and Parquet, a Hugging Face folder's metadata.


_COLUMNS = ("path", "file", "file_name", "filename", "image", "url")


_FILE_NAME = "file_name"


_ROWS_AT_ONCE = 4096


def in_text(place: str) -> Iterator[Item]:
    """One place a line, relative to the list's folder; empty lines count for nothing.

    Raises: InputError.
    """
    with opened(place) as file, io.TextIOWrapper(file, encoding="utf-8-sig") as text:
        try:
            for line in text:
                if line.strip():
                    yield _item(place, line.strip())
        except UnicodeDecodeError as error:
            raise InputError(f"{place} must be UTF-8: {error}", param="input") from error


def in_table(place: str, column: str | None) -> Iterator[Item]:
    """One place a row, relative to the table's folder.

    column: None for the first of the usual names that is there
    Raises: InputError.
    """
    names = _COLUMNS if column is None else (column,)
    parquet = place.lower().endswith(".parquet")
    values = _parquet(place, names) if parquet else _delimited(place, names)
    for number, value in enumerate(values, 1):
        if isinstance(value, str) and value.strip():
            yield _item(place, value.strip())
        else:
            yield Item(f"{place}#{number}", place, error=f"row {number} names no file")


def in_metadata(place: str) -> Iterator[Item]:
    """What the metadata of a Hugging Face image folder lists. Raises: InputError."""
    if not place.endswith(".jsonl"):
        yield from in_table(place, _FILE_NAME)
        return
    with opened(place) as file:
        for number, line in enumerate(file, 1):
            name = _file_name(line)
            if name is not None:
                yield _item(place, name)
            elif line.strip():
                error = f"line {number} is no JSON object with a file_name"
                yield Item(f"{place}#{number}", place, error=error)


def names_files(place: str) -> bool:
    """Whether a metadata file is one of an image folder: it has a column `file_name`.

    Raises: InputError.
    """
    with opened(place) as file:
        if place.endswith(".jsonl"):
            return _file_name(file.readline()) is not None
        if place.endswith(".parquet"):
            try:
                return _FILE_NAME in pq.read_schema(file).names
            except pa.ArrowException:
                return False
        head = file.readline().decode("utf-8-sig", errors="replace")
        return _FILE_NAME in next(csv.reader([head]), [])


def _file_name(line: bytes) -> str | None:
    try:
        value = json.loads(line)[_FILE_NAME]
    except (ValueError, KeyError, TypeError):
        return None
    return value if isinstance(value, str) else None


def _delimited(place: str, names: tuple[str, ...]) -> Iterator[object]:
    delimiter = "\t" if place.lower().endswith(".tsv") else ","
    with (
        opened(place) as file,
        io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text,
    ):
        try:
            rows = csv.DictReader(text, delimiter=delimiter, strict=True)
            name = _column(place, names, list(rows.fieldnames or ()))
            for row in rows:
                yield row[name]
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{place} can't be read as CSV: {error}", param="input") from error


def _parquet(place: str, names: tuple[str, ...]) -> Iterator[object]:
    with opened(place) as file:
        try:
            table = pq.ParquetFile(file)
            name = _column(place, names, table.schema_arrow.names)
            for batch in table.iter_batches(_ROWS_AT_ONCE, columns=[name]):
                yield from batch.column(0).to_pylist()
        except pa.ArrowException as error:
            raise InputError(f"{place} can't be read as Parquet: {error}", param="input") from error


def _column(place: str, names: tuple[str, ...], there: list[str]) -> str:
    for name in names:
        if name in there:
            return name
    raise InputError(
        f"{place} has no column {' or '.join(names)}; it has {', '.join(there) or 'none'}: name "
        "one with --column",
        param="column",
    )


def _item(listed_in: str, text: str) -> Item:
    """A place relative to the list that names it."""
    if is_remote(text) or PurePosixPath(text).is_absolute():
        return Item(text, text)
    folder = listed_in.rpartition("/")[0]
    place = f"{folder}/{text}" if folder else text
    return Item(place, place)


# ---- Images in folders, of this machine or remote; also Hugging Face image folders.


# Source: the Hugging Face documentation, "Create an image dataset": a folder with one of these is
# listed by it, in its column `file_name`, relative to the folder. Without that column it is a file
# like any other.
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def in_folder(folder: Path) -> Iterator[Item]:
    """The images of a folder and its subfolders, in the order of their names.

    Holds the names of one folder at a time. Links to folders are followed but never in circles.
    Raises: InputError for metadata that can't be used; OSError.
    """
    yield from _walk(folder, ())


def in_remote_folder(url: str) -> Iterator[Item]:
    """As `in_folder`, behind a URL. Holds all names: remote storage lists them page by page."""
    files, path = file_system(url)
    with asking(url):
        names = [str(name) for name in sorted(files.find(path))]
    parents = {
        PurePosixPath(name).parent: name
        for name in names
        if PurePosixPath(name).name in METADATA and names_files(files.unstrip_protocol(name))
    }
    for name in names:
        parent = PurePosixPath(name).parent
        if parents.get(parent) == name:
            yield from in_metadata(files.unstrip_protocol(name))
        elif has_image_suffix(name) and not any(
            one in parents for one in (parent, *parent.parents)
        ):
            place = files.unstrip_protocol(name)
            yield Item(place, place)


def matching(pattern: str) -> Iterator[str]:
    """Files that a pattern matches, in order; ** stands for any number of folders."""
    for path in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - relative or absolute
        if Path(path).is_file():
            yield path


def matching_remote(url: str) -> Iterator[str]:
    """As `matching`, behind a URL."""
    files, path = file_system(url)
    with asking(url):
        found = files.glob(path, detail=True)
    for name in sorted(found):
        if found[name]["type"] == "file":
            yield files.unstrip_protocol(name)


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Item]:
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for name in METADATA:
        if (folder / name).is_file() and names_files(str(folder / name)):
            yield from in_metadata(str(folder / name))
            return
    with os.scandir(folder) as entries:
        names = sorted((entry.name, entry.is_dir()) for entry in entries)
    for name, is_folder in names:
        if is_folder:
            yield from _walk(folder / name, (*above, here))
        elif has_image_suffix(name):
            place = str(folder / name)
            yield Item(place, place)


# ---- Images inside webdataset shards: plain .tar files, read by byte range.


def in_shard(place: str) -> Iterator[Item]:
    """The image files of an uncompressed .tar, in its order, each named SHARD/MEMBER.

    Reads the headers alone; of a remote shard that costs about as much as reading it whole. A
    damaged shard is an item with an error after the images that could be found.

    Raises: InputError, StorageUnreachableError.
    """
    with opened(place) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as shard:
                while (member := shard.next()) is not None:
                    # Kept by tarfile for lookups that nobody makes here.
                    shard.members = []  # type: ignore[attr-defined]
                    if member.isreg() and not member.issparse() and has_image_suffix(member.name):
                        name = f"{place}/{member.name}"
                        yield Item(name, place, member.offset_data, member.size)
        except tarfile.TarError as error:
            reason = f"the shard is no plain .tar file, or damaged ({error})"
            yield Item(place, place, error=reason)


# ---- The first stage: what there is to read, in input order, without reading any image.


_TEXTS = (".txt", ".lst")


_TABLES = (".csv", ".tsv", ".parquet")


_SHARDS = (".tar",)


KINDS = (*_TEXTS, *_TABLES, *_SHARDS)


def list_items(inputs: Iterable[str], *, column: str | None = None) -> Iterator[Item]:
    """Every image that the inputs name.

    inputs: each an image file; a folder, searched with its subfolders, or listed by its
        metadata.csv, .jsonl or .parquet if it is a Hugging Face image folder; a pattern with * or
        ?; a .txt or .lst of places; a .csv, .tsv or .parquet with a column of places; or a .tar
        shard. Paths of this machine, or URLs that fsspec opens.
    column: of tables; None for the first of the usual names that is there

    Raises: InputError, StorageUnreachableError.
    """
    for text in inputs:
        found = _remote(text, column) if is_remote(text) else _local(text, column)
        yield from _some(found, text)


def _local(text: str, column: str | None) -> Iterator[Item]:
    path = Path(text)
    if path.is_dir():
        return in_folder(path)
    if path.exists():
        return _by_kind(text, column)
    if any(mark in text for mark in "*?["):
        return _each(matching(text), column)
    raise InputError(f"{text} doesn't exist; check the path", param="input")


def _remote(url: str, column: str | None) -> Iterator[Item]:
    files, path = file_system(url)
    # Patterns first: a "?" in an address of http means something else.
    if any(mark in path for mark in "*[") or ("?" in path and not url.startswith("http")):
        return _each(matching_remote(url), column)
    with asking(url):
        if not url.lower().endswith(KINDS) and files.isdir(path):
            return in_remote_folder(url)
        if not files.exists(path):
            raise InputError(f"{url} doesn't exist; check the address", param="input")
    return _by_kind(url, column)


def _by_kind(place: str, column: str | None) -> Iterator[Item]:
    ending = place[place.rfind(".") :].lower()
    if ending in _TEXTS:
        return in_text(place)
    if ending in _TABLES:
        return in_table(place, column)
    if ending in _SHARDS:
        return in_shard(place)
    return iter([Item(place, place)])


def _each(places: Iterable[str], column: str | None) -> Iterator[Item]:
    """What a pattern matched: lists and shards are opened, all else are images."""
    for place in places:
        yield from _by_kind(place, column)


def _some(items: Iterator[Item], text: str) -> Iterator[Item]:
    number = 0
    for number, item in enumerate(items, 1):  # noqa: B007
        yield item
    if number == 0:
        raise InputError(f"{text} holds no images; name a place that does", param="input")
