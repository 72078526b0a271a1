"""A CSV or JSONL file that gives each uploaded image its label."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping

from service.errors import UploadError
from service.finetuning.items import Item, Offered

_COLUMNS = ("file", "label")


def match_table(data: bytes, name: str, files: Mapping[str, Callable[[], bytes]]) -> Offered:
    """The images that the table names.

    name: of the table's file; it decides by its ending. files: the uploaded ones, by their names
    Raises: UploadError if the table can't be read at all.
    """
    offered = Offered()
    labels: dict[str, str] = {}
    for line, file, label in _rows(data, name):
        where = f"{name} line {line}"
        if not file or not label:
            offered.problems.append(f"{where} lacks a file or a label")
        elif file not in files:
            offered.problems.append(f"{where} names {file!r}, which wasn't uploaded")
        elif labels.setdefault(file, label) != label:
            offered.problems.append(
                f"{file!r} stands under two labels: {labels[file]!r}, {label!r}"
            )
    offered.problems += [f"{file!r} isn't in {name}" for file in files if file not in labels]
    offered.items += [Item(label, file, files[file]) for file, label in sorted(labels.items())]
    return offered


def _rows(data: bytes, name: str) -> Iterator[tuple[int, str, str]]:
    """Line number, file and label of each row."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UploadError(f"{name} isn't UTF-8 ({error})", param="manifest") from error
    if name.lower().endswith(".csv"):
        yield from _csv_rows(text, name)
    elif name.lower().endswith(".jsonl"):
        yield from _json_rows(text, name)
    else:
        raise UploadError(f"{name} must end with .csv or .jsonl", param="manifest")


def _csv_rows(text: str, name: str) -> Iterator[tuple[int, str, str]]:
    reader = csv.DictReader(io.StringIO(text))
    try:
        missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise UploadError(f"{name} has no column {missing[0]!r}", param="manifest")
        for row in reader:
            yield reader.line_num, row["file"] or "", row["label"] or ""
    except csv.Error as error:
        raise UploadError(f"{name} isn't CSV ({error})", param="manifest") from error


def _json_rows(text: str, name: str) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UploadError(f"{name} line {number} isn't JSON", param="manifest") from error
        if not isinstance(row, dict):
            raise UploadError(f"{name} line {number} is no JSON object", param="manifest")
        file, label = row.get("file"), row.get("label")
        yield (
            number,
            file if isinstance(file, str) else "",
            label if isinstance(label, str) else "",
        )
