"""Lists of places: lines of text, columns of CSV and Parquet, a Hugging Face folder's metadata."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from service.batch.errors import InputError
from service.batch.item import Item
from service.batch.storage import is_remote, opened

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
