"""Finished blocks to files of results: JSON lines, CSV, Parquet, and vectors as .npy."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.encoder import Vectors
from service.batch.journal import Part
from service.batch.rows import Row

_COLUMNS = tuple(Row.__annotations__)
# Parquet's row groups: rows enough to compress well, few enough to hold.
_PARTS_AT_ONCE = 32
_MATCH = pa.struct(
    [
        ("label", pa.string()),
        ("score", pa.float64()),
        ("probability", pa.float64()),
        ("rank", pa.int32()),
    ]
)
_GROUP = pa.struct([("group", pa.string()), ("probability", pa.float64()), ("rank", pa.int32())])
_TYPES = {
    "file": pa.string(),
    "label": pa.string(),
    "score": pa.float64(),
    "probability": pa.float64(),
    "unknown": pa.bool_(),
    "reason": pa.string(),
    "probability_kind": pa.string(),
    "matches": pa.list_(_MATCH),
    "groups": pa.list_(_GROUP),
    "model": pa.string(),
    "index": pa.string(),
    "index_version": pa.int64(),
    "adapter": pa.string(),
    "error": pa.string(),
}

WriteRows = Callable[[Path, Iterable[Part]], None]


def write_jsonl(path: Path, parts: Iterable[Part]) -> None:
    """One JSON object a line, as `Row` has it."""
    with path.open("wb") as file:
        for part in parts:
            file.writelines(part.lines())


def write_csv(path: Path, parts: Iterable[Part]) -> None:
    """One line a row under a header, UTF-8; lists are JSON, what is None is empty."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for part in parts:
            for line in part.lines():
                row = json.loads(line)
                writer.writerow([_cell(row[name]) for name in _COLUMNS])


def write_parquet(path: Path, parts: Iterable[Part], *, embeddings: int | None = None) -> None:
    """Typed columns; of a match its label, score, probability and rank.

    embeddings: length D of the vectors that go into a column of their own, None for no column;
        an image that couldn't be read has null there
    """
    fields = list(_TYPES.items())
    if embeddings is not None:
        fields.append(("embedding", pa.list_(pa.float32(), embeddings)))
    schema = pa.schema(fields)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for together in _taken(parts, _PARTS_AT_ONCE):
            writer.write_table(
                pa.concat_tables(_table(part, schema, embeddings) for part in together)
            )


def _table(part: Part, schema: pa.Schema, embeddings: int | None) -> pa.Table:
    """One block's rows, as Arrow's columns: a tenth of what Python's objects take."""
    rows = [json.loads(line) for line in part.lines()]
    columns = [pa.array([row[name] for row in rows], kind) for name, kind in _TYPES.items()]
    if embeddings is not None:
        columns.append(_embedding_column(part.load_vectors()))
    return pa.Table.from_arrays(columns, schema=schema)


def write_npy(path: Path, parts: Iterable[Part], *, rows: int, dim: int) -> None:
    """float32 [rows, dim] in the order of the rows; NaN where an image couldn't be read."""
    header = io.BytesIO()
    about = {"descr": "<f4", "fortran_order": False, "shape": (rows, dim)}
    np.lib.format.write_array_header_1_0(header, about)
    with path.open("wb") as file:
        file.write(header.getvalue())
        for part in parts:
            file.write(part.load_vectors().astype("<f4", copy=False).tobytes())


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def _embedding_column(vectors: Vectors) -> pa.Array:
    missing = np.isnan(vectors[:, 0])
    values = pa.array(vectors.reshape(-1), pa.float32())
    return pa.FixedSizeListArray.from_arrays(values, vectors.shape[1], mask=pa.array(missing))


def _taken(parts: Iterable[Part], number: int) -> Iterator[list[Part]]:
    rest = iter(parts)
    while together := list(itertools.islice(rest, number)):
        yield together
