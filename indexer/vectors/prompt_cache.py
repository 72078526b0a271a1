"""Vectors kept on disk by what they are of: what has been encoded once is not encoded again.

That is what makes an interrupted build go on where it stopped, and a change cost only what is new.
Losing the file costs time, never an answer, so a damaged one is thrown away.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from models.encoder import Vectors

_SCHEMA = """
CREATE TABLE IF NOT EXISTS vectors (
    key BLOB PRIMARY KEY, vector BLOB NOT NULL, crc INTEGER NOT NULL, used INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS vectors_used ON vectors (used);
"""
_KEYS_AT_ONCE = 500  # SQLite binds at most 999 values in its oldest builds
_WAIT = 60.0  # seconds for another process's write
_DAY = 86400  # seconds; a vector's last use is noted once a day
_DROPPED_AT_ONCE = 0.1  # share of the vectors, when the file is full


class PromptCache:
    """One SQLite file for all models; safe for many threads and processes.

    max_bytes: size of the file beyond which the vectors unused for longest go
    """

    def __init__(self, path: str | Path, *, max_bytes: int = 4 << 30) -> None:
        self.path = Path(path)
        self._max_bytes = max_bytes

    def get(
        self, fingerprint: str, rows: Sequence[tuple[str, ...]], dim: int
    ) -> list[Vectors | None]:
        """The vector of each row of prompts, float32 [dim], None where it isn't known."""
        keys = [_key(fingerprint, prompts) for prompts in rows]
        known: dict[bytes, Vectors] = {}
        now = int(time.time())
        with self._open() as database:
            for start in range(0, len(keys), _KEYS_AT_ONCE):
                part = keys[start : start + _KEYS_AT_ONCE]
                marks = ",".join("?" * len(part))
                found = database.execute(
                    f"SELECT key, vector, crc, used FROM vectors WHERE key IN ({marks})",
                    part,
                ).fetchall()
                stale = [(now, key) for key, _, _, used in found if used < now - _DAY]
                database.executemany("UPDATE vectors SET used = ? WHERE key = ?", stale)
                for key, data, checksum, _ in found:
                    if zlib.crc32(data) == checksum and len(data) == 4 * dim:
                        known[key] = np.frombuffer(data, dtype="<f4")
        return [known.get(key) for key in keys]

    def put(self, fingerprint: str, rows: Sequence[tuple[str, ...]], vectors: Vectors) -> None:
        """Keep the vectors of these rows of prompts: float32 [len(rows), D]."""
        now = int(time.time())
        records = []
        for prompts, vector in zip(rows, vectors, strict=True):
            data = vector.astype("<f4").tobytes()
            records.append((_key(fingerprint, prompts), data, zlib.crc32(data), now))
        with self._open() as database:
            database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", records)
            if self._used_bytes(database) > self._max_bytes:
                count = database.execute("SELECT COUNT(*) FROM vectors").fetchone()[0]
                database.execute(
                    "DELETE FROM vectors WHERE key IN "
                    "(SELECT key FROM vectors ORDER BY used, rowid LIMIT ?)",
                    (max(1, int(count * _DROPPED_AT_ONCE)),),
                )

    @staticmethod
    def _used_bytes(database: sqlite3.Connection) -> int:
        page, pages, free = (
            database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_size", "page_count", "freelist_count")
        )
        return int(page * (pages - free))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection whose changes are committed at the end of the block."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            database = self._connect()
        except sqlite3.OperationalError:  # locked, or the disk is full: not the file's fault
            raise
        except sqlite3.DatabaseError:
            self._discard()
            database = self._connect()
        with closing(database), database:
            yield database

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=_WAIT)
        try:
            # Not WAL, whose shared memory ends with the machine: replicas may share the folder.
            database.execute("PRAGMA journal_mode = TRUNCATE")
            database.execute("PRAGMA synchronous = NORMAL")
            database.executescript(_SCHEMA)
        except sqlite3.DatabaseError:
            database.close()
            raise
        return database

    def _discard(self) -> None:
        for ending in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)


def _key(fingerprint: str, prompts: Sequence[str]) -> bytes:
    content = json.dumps([fingerprint, *prompts], ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).digest()
