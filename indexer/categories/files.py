"""Categories from .txt, .csv, .json and .jsonl files, or from the bytes of an upload."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from indexer.categories.category import Category, as_categories, category_from_json
from indexer.errors import CategoryError

_LIST_SEPARATOR = "|"
_BOOLEANS = {
    "": False,
    "0": False,
    "false": False,
    "no": False,
    "1": True,
    "true": True,
    "yes": True,
}


def read_categories(path: str | Path) -> list[Category]:
    """The categories in a file; its ending says which format it has.

    Raises: CategoryError if it can't be read, isn't UTF-8, isn't of its format, or holds an empty
    or a duplicate label; the message says where.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise CategoryError(f"can't read {path}: {reason.lower()}", param="labels") from error
    return parse_categories(data, path.name)


def parse_categories(data: bytes, filename: str) -> list[Category]:
    """The categories in a file's bytes.

    filename: its ending (.txt, .csv, .json, .jsonl) says which format the bytes have.
    Raises: CategoryError, as `read_categories`.
    """
    ending = Path(filename).suffix.lower()
    parse = _PARSERS.get(ending)
    if parse is None:
        raise CategoryError(
            f"{filename}: unknown ending {ending!r}; use one of {', '.join(_PARSERS)}",
            param="labels",
        )
    try:
        return as_categories(parse(_decode(data)))
    except CategoryError as error:
        raise CategoryError(f"{filename}: {error.message}", param=error.param) from error


def _decode(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CategoryError(
            f"line {line} isn't UTF-8 (byte 0x{data[error.start]:02x} at offset {error.start}); "
            "save the file as UTF-8",
            param="labels",
        ) from error
    return text


def _from_txt(text: str) -> Iterator[Category]:
    lines = text.rstrip().splitlines()  # the blank lines at the end belong to no label
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise CategoryError(
                f"line {number} is empty; every line holds one label", param="labels"
            )
        yield category_from_json(line, where=f"line {number}")


def _from_csv(text: str) -> Iterator[Category]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if "label" not in header:
            raise CategoryError(
                "the first row must name the columns, one of them 'label' "
                "(also: prompts, synonyms, group, background; others become metadata)",
                param="labels",
            )
        if len(set(header)) < len(header):
            raise CategoryError("a column's name occurs twice in the first row", param="labels")
        for cells in reader:
            where = f"line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                if cells:
                    raise CategoryError(f"{where} has no label", param="labels")
                continue
            if len(cells) != len(header):
                raise CategoryError(
                    f"{where} has {len(cells)} cells, the first row {len(header)}", param="labels"
                )
            yield _from_row(dict(zip(header, cells, strict=True)), where)
    except csv.Error as error:
        raise CategoryError(f"line {reader.line_num} isn't CSV: {error}", param="labels") from error


def _from_row(row: dict[str, str], where: str) -> Category:
    background = row.pop("background", "").strip().lower()
    if background not in _BOOLEANS:
        raise CategoryError(f"{where}: 'background' must be true or false", param="labels")
    value: dict[str, object] = {"label": row.pop("label"), "background": _BOOLEANS[background]}
    for key in ("prompts", "synonyms"):
        listed = [item for item in row.pop(key, "").split(_LIST_SEPARATOR) if item.strip()]
        if listed:
            value[key] = listed
    group = row.pop("group", "").strip()
    if group:
        value["group"] = group
    value["metadata"] = {key: cell for key, cell in row.items() if cell}
    return category_from_json(value, where=where)  # type: ignore[arg-type]


def _from_json(text: str) -> Iterator[Category]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise CategoryError(
            f"line {error.lineno} isn't JSON: {error.msg}", param="labels"
        ) from error
    if isinstance(value, Mapping) and isinstance(value.get("categories"), list):
        value = value["categories"]
    if isinstance(value, Mapping):  # the form of published description sets: label -> sentences
        value = [{"label": label, "prompts": prompts} for label, prompts in value.items()]
    if not isinstance(value, list):
        raise CategoryError(
            "the file must hold a list of labels or objects, or an object of label: sentences",
            param="labels",
        )
    for number, item in enumerate(value):
        yield category_from_json(item, where=f"entry {number}")


def _from_jsonl(text: str) -> Iterator[Category]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise CategoryError(f"line {number} isn't JSON: {error.msg}", param="labels") from error
        yield category_from_json(value, where=f"line {number}")


_PARSERS: dict[str, Callable[[str], Iterator[Category]]] = {
    ".txt": _from_txt,
    ".csv": _from_csv,
    ".json": _from_json,
    ".jsonl": _from_jsonl,
}
