"""Finished blocks to files of results: JSON lines, CSV, Parquet, and vectors as .npy."""

from __future__ import annotations

import csv
import functools
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.encoder import Vectors
from service.batch.errors import OutputError
from service.batch.journal import Journal, Part
from service.batch.pipeline import BLOCK_SIZE
from service.batch.rows import Row
from storage.durable import replace_file, sync_file, sync_folder

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


# ---- A finished journal to results in place: written beside, then renamed, each file whole.


FORMATS = (".jsonl", ".csv", ".parquet")


_MARKER = "complete.json"


@dataclass(frozen=True)
class Results:
    """What a run is to leave behind.

    out: ends in .jsonl, .csv or .parquet
    embeddings: None for none, "column" of the Parquet rows, or the .npy file they go to
    shard_rows: a Parquet result of more rows is cut into several; a multiple of BLOCK_SIZE

    Raises: OutputError.
    """

    out: Path
    embeddings: Path | str | None = None
    shard_rows: int = 4096 * BLOCK_SIZE

    def __post_init__(self) -> None:
        if self.out.suffix not in FORMATS:
            raise OutputError(
                f"{self.out}: results go to a file that ends in {', '.join(FORMATS)}", param="out"
            )
        if self.out.is_dir() or not self.out.absolute().parent.is_dir():
            raise OutputError(f"{self.out} can't be a file; name one in a folder", param="out")
        if self.embeddings == "column" and self.out.suffix != ".parquet":
            raise OutputError(
                "only a .parquet result has a column of embeddings; name a .npy file for them",
                param="embeddings",
            )
        if isinstance(self.embeddings, Path) and (
            self.embeddings.suffix != ".npy"
            or self.embeddings.absolute().parent != self.out.absolute().parent
        ):
            raise OutputError(
                f"{self.embeddings}: embeddings go to a .npy file beside the results, or into a "
                "'column' of them",
                param="embeddings",
            )
        if self.shard_rows < 1 or self.shard_rows % BLOCK_SIZE:
            raise OutputError(
                f"the rows of a shard must be a multiple of {BLOCK_SIZE}, not {self.shard_rows}",
                param="shard_rows",
            )


def publish(journal: Journal, results: Results, *, dim: int) -> list[Path]:
    """Put the results in place of whatever lay there; returns their files.

    Killed at any point, it goes on when called again.

    dim: length of a vector
    """
    marker = journal.folder / _MARKER
    if not marker.exists():
        staged = _stage(journal, results, dim)
        sync_folder(journal.folder / "staged")
        replace_file(marker, json.dumps(staged).encode())
    names: list[str] = json.loads(marker.read_text(encoding="utf-8"))
    finals = [Path(name) for name in names]
    for number, final in enumerate(finals):
        source = journal.folder / "staged" / str(number)
        if source.exists():  # else it was renamed before this run was killed
            source.replace(final)
            sync_folder(final.parent)
    for stale in set(_shards_of(results.out)) - set(finals):
        stale.unlink()
    if results.out.absolute() not in finals:  # it was cut into shards
        results.out.unlink(missing_ok=True)
    return finals


def is_complete(journal: Journal) -> bool:
    """Whether all files were written, and only have to be renamed."""
    return (journal.folder / _MARKER).exists()


def _stage(journal: Journal, results: Results, dim: int) -> list[str]:
    """Write everything into the journal's folder; returns the final paths, in order."""
    folder = journal.folder / "staged"
    folder.mkdir(exist_ok=True)
    write, shards = _writer(results, dim), _shards(journal.parts, results)
    finals: list[Path] = []
    for number, parts in enumerate(shards):
        name = f"{results.out.stem}-{number:05}-of-{len(shards):05}{results.out.suffix}"
        finals.append(results.out if len(shards) == 1 else results.out.with_name(name))
        write(folder / str(number), parts)
        sync_file(folder / str(number))
    if isinstance(results.embeddings, Path):
        path = folder / str(len(finals))
        write_npy(path, journal.parts, rows=journal.total, dim=dim)
        sync_file(path)
        finals.append(results.embeddings)
    return [str(final.absolute()) for final in finals]


def _writer(results: Results, dim: int) -> WriteRows:
    if results.out.suffix == ".parquet":
        embeddings = dim if results.embeddings == "column" else None
        return functools.partial(write_parquet, embeddings=embeddings)
    return write_csv if results.out.suffix == ".csv" else write_jsonl


def _shards(parts: list[Part], results: Results) -> list[list[Part]]:
    if results.out.suffix != ".parquet":
        return [parts]
    at_once = results.shard_rows // BLOCK_SIZE
    return [parts[start : start + at_once] for start in range(0, len(parts), at_once)]


def _shards_of(out: Path) -> Iterator[Path]:
    """Files that an earlier run cut its results into."""
    name = re.compile(re.escape(out.stem) + r"-\d{5}-of-\d{5}" + re.escape(out.suffix))
    for path in out.absolute().parent.iterdir():
        if name.fullmatch(path.name):
            yield path
