"""A finished journal to results in place: written beside, then renamed, each file whole."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from indexer.durable import sync_file, sync_folder
from service.batch.blocks import BLOCK_SIZE
from service.batch.errors import OutputError
from service.batch.formats import WriteRows, write_csv, write_jsonl, write_npy, write_parquet
from service.batch.journal import Journal, Part

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
        beside = marker.with_suffix(".new")
        beside.write_text(json.dumps(staged), encoding="utf-8")
        sync_file(beside)
        beside.replace(marker)
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
