"""The queue of fine-tuning jobs, in SQLite: it outlives the server and everything that it starts.

The server and the job's process write to it; both may be killed at any moment. What was committed
stays: the file is in WAL mode, and every commit is synced.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from indexer.errors import ConflictError
from service.errors import JobStoreError, UnknownJobError

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


UNFINISHED = ("queued", "running")


@dataclass(frozen=True)
class Record:
    """A job as it is written down.

    attempts: processes begun for it; seconds: that they have run; cancelling: it shall end soon
    result: once it has succeeded; error: {"code", "message"} once it has failed
    told: whether its callback has been dealt with
    """

    id: str
    state: State
    options: Mapping[str, Any]
    created: str
    started: str | None
    finished: str | None
    attempts: int
    seconds: float
    cancelling: bool
    result: Mapping[str, Any] | None
    error: Mapping[str, str] | None
    told: bool

    @property
    def done(self) -> bool:
        """Whether it has ended, well or badly."""
        return self.state not in UNFINISHED


@dataclass(frozen=True)
class Event:
    """Something that happened to a job; number: from 1, without gaps."""

    number: int
    kind: str
    data: Mapping[str, Any]


def record_of(row: sqlite3.Row) -> Record:
    """A row of the table `jobs`."""
    return Record(
        id=row["id"],
        state=row["state"],
        options=json.loads(row["options"]),
        created=row["created"],
        started=row["started"],
        finished=row["finished"],
        attempts=row["attempts"],
        seconds=row["seconds"],
        cancelling=bool(row["cancelling"]),
        result=None if row["result"] is None else json.loads(row["result"]),
        error=None if row["error"] is None else json.loads(row["error"]),
        told=bool(row["told"]),
    )


_VERSION = 1
_PATIENCE = 30.0  # seconds that a writer waits for another one
_SCHEMA = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    options TEXT NOT NULL,
    created TEXT NOT NULL,
    started TEXT,
    finished TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    seconds REAL NOT NULL DEFAULT 0,
    cancelling INTEGER NOT NULL DEFAULT 0,
    result TEXT,
    error TEXT,
    told INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE events (
    job TEXT NOT NULL,
    number INTEGER NOT NULL,
    kind TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (job, number)
);
PRAGMA user_version = 1;
"""


class JobQueue:
    """The jobs in one file, which is made when it is first written to. Safe to use from any thread
    and process; every method is one transaction.

    All methods raise JobStoreError where the file is damaged, locked for long, or can't be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, job_id: str, options: Mapping[str, Any]) -> Record:
        """Append a job."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO jobs (id, state, options, created) VALUES (?, 'queued', ?, ?)",
                (job_id, json.dumps(options), _now()),
            )
            return _record(db, job_id)

    def get(self, job_id: str) -> Record:
        """One job. Raises: UnknownJobError."""
        with self._reading() as db:
            return _record(db, job_id)

    def records(self) -> list[Record]:
        """All jobs, the newest first."""
        with self._reading() as db:
            return [record_of(row) for row in db.execute("SELECT * FROM jobs ORDER BY number DESC")]

    def claim(self) -> Record | None:
        """The oldest queued job, which is running from now on; None where nothing waits."""
        with self._writing() as db:
            row = db.execute(
                "SELECT id FROM jobs WHERE state = 'queued' ORDER BY number LIMIT 1"
            ).fetchone()
            if row is None:
                return None
            db.execute(
                "UPDATE jobs SET state = 'running', attempts = attempts + 1, "
                "started = coalesce(started, ?) WHERE id = ?",
                (_now(), row["id"]),
            )
            return _record(db, row["id"])

    def release(self, job_id: str, *, counts: bool) -> None:
        """Back to the queue, at its old place.

        counts: whether the attempt that has ended says something against the job
        """
        with self._writing() as db:
            db.execute(
                "UPDATE jobs SET state = 'queued', attempts = attempts - ? "
                "WHERE id = ? AND state = 'running'",
                (int(not counts), job_id),
            )

    def recover(self) -> None:
        """Put what a server that died has left running back into the queue."""
        with self._writing() as db:
            db.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'")

    def spend(self, job_id: str, seconds: float) -> float:
        """Add to a job's running time; returns the sum."""
        with self._writing() as db:
            db.execute("UPDATE jobs SET seconds = seconds + ? WHERE id = ?", (seconds, job_id))
            return _record(db, job_id).seconds

    def cancel(self, job_id: str) -> Record:
        """End a job: at once if it waits, as soon as it can if it runs.

        Raises: UnknownJobError; ConflictError if it has ended.
        """
        with self._writing() as db:
            record = _record(db, job_id)
            if record.done:
                raise ConflictError(f"the job {job_id} has ended: it {record.state}", param="id")
            if record.state == "queued":
                _finish(db, job_id, "cancelled", None, None)
            else:
                db.execute("UPDATE jobs SET cancelling = 1 WHERE id = ?", (job_id,))
            return _record(db, job_id)

    def finish(
        self,
        job_id: str,
        state: State,
        *,
        result: Mapping[str, Any] | None = None,
        error: Mapping[str, str] | None = None,
    ) -> Record:
        """Write down how an unfinished job ended; one that has ended stays as it is."""
        with self._writing() as db:
            if not _record(db, job_id).done:
                _finish(db, job_id, state, result, error)
            return _record(db, job_id)

    def tell(self, job_id: str, kind: str, data: Mapping[str, Any]) -> None:
        """Append an event."""
        with self._writing() as db:
            _tell(db, job_id, kind, data)

    def events(self, job_id: str, *, after: int = 0, kind: str | None = None) -> list[Event]:
        """The events with a greater number than `after`, in order; of one kind if it is given."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT * FROM events WHERE job = ? AND number > ? AND kind = coalesce(?, kind) "
                "ORDER BY number",
                (job_id, after, kind),
            )
            return [Event(row["number"], row["kind"], json.loads(row["data"])) for row in rows]

    def untold(self) -> list[Record]:
        """Finished jobs whose callback hasn't been dealt with, the oldest first."""
        states = ",".join(f"'{state}'" for state in UNFINISHED)
        with self._reading() as db:
            rows = db.execute(
                f"SELECT * FROM jobs WHERE told = 0 AND state NOT IN ({states}) ORDER BY number"
            )
            return [record_of(row) for row in rows]

    def mark_told(self, job_id: str) -> None:
        """The job's callback has been dealt with."""
        with self._writing() as db:
            db.execute("UPDATE jobs SET told = 1 WHERE id = ?", (job_id,))

    def forget(self, *, keep: int) -> list[str]:
        """Remove all but the last `keep` finished jobs; returns the ids of those removed."""
        with self._writing() as db:
            rows = db.execute(
                "SELECT id FROM jobs WHERE finished IS NOT NULL AND told = 1 "
                "ORDER BY number DESC LIMIT -1 OFFSET ?",
                (keep,),
            ).fetchall()
            for row in rows:
                db.execute("DELETE FROM jobs WHERE id = ?", (row["id"],))
                db.execute("DELETE FROM events WHERE job = ?", (row["id"],))
            return [str(row["id"]) for row in rows]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(self._open()) as db:
                yield db
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None)
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous = FULL")
            if _version(db) == 0:
                db.execute("PRAGMA journal_mode = WAL")
                self._create(db)
            if _version(db) != _VERSION:
                raise JobStoreError(
                    f"{self.path} was written by another version of clipdex; move it away"
                )
        except BaseException:
            db.close()
            raise
        return db

    @staticmethod
    def _create(db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        if _version(db) == 0:  # nobody else was quicker
            for statement in _SCHEMA.split(";\n"):
                db.execute(statement)
        db.execute("COMMIT")

    def _unusable(self, error: sqlite3.Error) -> JobStoreError:
        return JobStoreError(f"{self.path} can't be used: {error}")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _record(db: sqlite3.Connection, job_id: str) -> Record:
    row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        raise UnknownJobError(
            f"there is no fine-tuning job {job_id!r}; see GET /v1/finetunes", param="id"
        )
    return record_of(row)


def _finish(
    db: sqlite3.Connection,
    job_id: str,
    state: State,
    result: Mapping[str, Any] | None,
    error: Mapping[str, str] | None,
) -> None:
    _tell(db, job_id, "state", {"state": state})
    db.execute(
        "UPDATE jobs SET state = ?, finished = ?, result = ?, error = ? WHERE id = ?",
        (
            state,
            _now(),
            None if result is None else json.dumps(finite(result)),
            None if error is None else json.dumps(error),
            job_id,
        ),
    )


def _tell(db: sqlite3.Connection, job_id: str, kind: str, data: Mapping[str, Any]) -> None:
    db.execute(
        "INSERT INTO events SELECT ?, coalesce(max(number), 0) + 1, ?, ? FROM events WHERE job = ?",
        (job_id, kind, json.dumps(finite(data)), job_id),
    )


def finite(value: Any) -> Any:
    """`value` with None for numbers that JSON doesn't have (nan, infinities)."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
