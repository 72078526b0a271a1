"""What a run has done so far, in a folder beside its results: OUT.partial/.

    job.json        what is asked; a run only goes on where the same is asked
    listing.jsonl   every item, so that what changes in the inputs meanwhile can't shift the rows
    seen.sqlite3    the answers by image content, so that copies are encoded once
    rows/           one file a finished block: a line about the block, then a row a line
    vectors/        the block's vectors, where they are wanted
    lock            held while a run is at work

Every file is written beside and renamed into place, a block's rows last: a block is there whole,
or not at all.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from models.encoder import Vectors
from service.batch.answer_cache import DiskCache
from service.batch.errors import JournalError, ResumeError
from service.batch.inputs import Item
from service.batch.pipeline import BLOCK_SIZE, Block, BlockResult, blocks
from storage.durable import replacing

_LAYOUT = 1
_JOB = "job.json"


@dataclass(frozen=True)
class Part:
    """A finished block on disk.

    rows, vectors: its files; vectors None where none are kept
    number: the block's; count: its rows; failed: those with an error
    """

    rows: Path
    vectors: Path | None
    number: int
    count: int
    failed: int
    duplicates: int

    def lines(self) -> Iterator[bytes]:
        """The rows, as lines of JSON."""
        with self.rows.open("rb") as file:
            yield from itertools.islice(file, 1, None)

    def load_vectors(self) -> Vectors:
        """float32 [count, D]."""
        if self.vectors is None:
            raise JournalError(f"{self.rows} has no vectors beside it")
        vectors: Vectors = np.load(self.vectors, allow_pickle=False)
        return vectors


class Journal:
    """One run's folder. Use it as a context; nobody else can while it is open."""

    def __init__(self, folder: Path, lock: IO[bytes]) -> None:
        """See `open`."""
        self.folder = folder
        self._lock = lock
        self._cache: DiskCache | None = None
        # What a run that has begun was asked; None before `begin`.
        self.recorded: dict[str, Any] | None = None
        self.parts: list[Part] = []
        # Items of the listing, those whose rows are kept, and whether any lies in remote storage.
        self.total, self.done, self.remote = 0, 0, False

    @classmethod
    def open(
        cls, out: Path, asked: dict[str, Any] | None, list_inputs: Callable[[], Iterable[Item]]
    ) -> Self:
        """List the inputs of the run whose results go to `out`, or find what it has done so far.

        asked: everything that the results depend on, as JSON; has to be the same to go on. None
            where that is not known yet: then `begin` is called with it, before anything is added.
        list_inputs: called unless an earlier run has listed all already
        Raises: ResumeError; what `list_inputs` raises; JournalError.
        """
        folder = work_folder(out)
        folder.mkdir(exist_ok=True)
        lock = (folder / "lock").open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise ResumeError(
                f"another clipdex is writing {out}; wait for it, or name another --out", param="out"
            ) from error
        journal = cls(folder, lock)
        try:
            journal._list(list_inputs)
            if asked is not None:
                journal.begin(asked)
        except BaseException:
            journal.close()
            raise
        return journal

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the folder. What a run that has begun has done is kept."""
        if self._lock.closed:
            return  # the folder may be another run's by now
        if self._cache is not None:
            self._cache.close()
            self._cache = None
        if not (self.folder / _JOB).exists():
            shutil.rmtree(self.folder)  # nothing has begun, or all is done
        self._lock.close()

    def cache(self) -> DiskCache:
        """The answers of this run by image content; closed with the journal."""
        if self._cache is None:
            self._cache = DiskCache(self.folder / "seen.sqlite3")
        return self._cache

    def missing(self) -> Iterator[Block]:
        """The blocks that aren't done yet, in order."""
        done = {part.number for part in self.parts}
        for block in blocks(self.items()):
            if block.number not in done:
                yield block

    def items(self) -> Iterator[Item]:
        """The listing."""
        with (self.folder / "listing.jsonl").open("rb") as file:
            for line in file:
                yield Item(**json.loads(line))

    def add(self, result: BlockResult) -> None:
        """Keep a block's result; once this returns, a killed run has it."""
        name = f"{len(self.parts):08}"
        vectors = None
        if result.vectors is not None:
            vectors = self.folder / "vectors" / f"{name}.npy"
            with _written(vectors) as file:
                np.save(file, result.vectors, allow_pickle=False)
        failed = sum(row["error"] is not None for row in result.rows)
        about = {
            "block": result.number,
            "count": len(result.rows),
            "failed": failed,
            "duplicates": result.duplicates,
        }
        path = self.folder / "rows" / f"{name}.jsonl"
        with _written(path) as file:
            for line in (about, *result.rows):
                file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self.parts.append(
            Part(path, vectors, result.number, len(result.rows), failed, result.duplicates)
        )
        self.done += len(result.rows)

    def remove(self) -> None:
        """The results are in place: nothing here is needed any more."""
        # First what makes this a run to go on with: half a folder must not look like one.
        (self.folder / _JOB).unlink()
        self.close()

    def begin(self, asked: dict[str, Any]) -> None:
        """Note what a new run is asked; find out that an unfinished one is asked the same.

        Raises: ResumeError where it was asked something else.
        """
        told = json.loads(json.dumps({"layout": _LAYOUT, "block": BLOCK_SIZE, **asked}))
        if self.recorded is not None:
            _check_same(self.folder, self.recorded, told)
            return
        with _written(self.folder / _JOB) as file:  # with it the run has begun
            file.write(json.dumps(told, ensure_ascii=False).encode())
        self.recorded = told

    def _list(self, list_inputs: Callable[[], Iterable[Item]]) -> None:
        self.recorded = _recorded(self.folder)
        listing = self.folder / "listing.jsonl"
        if self.recorded is None:
            self._clear()
            with _written(listing) as file:
                for item in list_inputs():
                    file.write(json.dumps(asdict(item)).encode() + b"\n")
            for name in ("rows", "vectors"):
                (self.folder / name).mkdir()
        with listing.open("rb") as file:
            for line in file:
                self.total += 1
                self.remote = self.remote or b"://" in line
        self.parts = list(_read_parts(self.folder))
        self.done = sum(part.count for part in self.parts)

    def _clear(self) -> None:
        """Remove what a run left that hadn't begun yet, or was removing its folder."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()


@contextmanager
def _written(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name once it is whole and on the disk."""
    with replacing(path) as beside, beside.open("wb") as file:
        yield file


def work_folder(out: Path) -> Path:
    """Where a run keeps what it has done until its results are complete."""
    return out.with_name(f"{out.name}.partial")


def _recorded(folder: Path) -> dict[str, Any] | None:
    path = folder / _JOB
    try:
        asked: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise JournalError(f"{path} is damaged; delete {path.parent} to begin anew") from error
    return asked


def _check_same(folder: Path, known: dict[str, Any], asked: dict[str, Any]) -> None:
    other = sorted(key for key in {*known, *asked} if known.get(key) != asked.get(key))
    if other:
        raise ResumeError(
            f"{folder} holds an unfinished run with other settings ({', '.join(other)}); finish it "
            "with the command that began it, or delete that folder",
            param="out",
        )


def _read_parts(folder: Path) -> Iterator[Part]:
    for number, rows in enumerate(sorted((folder / "rows").glob("*.jsonl"))):
        if rows.stem != f"{number:08}":
            raise JournalError(f"{rows.with_stem(f'{number:08}')} is missing; delete {folder}")
        vectors = folder / "vectors" / f"{rows.stem}.npy"
        with rows.open("rb") as file:
            about = json.loads(file.readline())
        yield Part(
            rows,
            vectors if vectors.exists() else None,
            about["block"],
            about["count"],
            about["failed"],
            about["duplicates"],
        )
