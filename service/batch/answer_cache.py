"""A cache of answers by image content, so that copies of an image are encoded once.

`claim` is called in the order in which images go to the encoder. Its result then depends on the
images alone, not on the timing of threads.
"""

from __future__ import annotations

import json
import sqlite3
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from models.encoder import Vectors
from service.batch.rows import Row

# Answers of the default index, about 60 MB.
_KEPT = 50_000


@dataclass
class CachedAnswer:
    """The answer of one content; filled in once it is there.

    row: of the first image that had it; vector: float32 [D], if vectors are wanted
    """

    row: Row | None = None
    vector: Vectors | None = None


class AnswerCache(Protocol):
    """Answers by digest of the image file. Used from one thread."""

    def claim(self, digest: bytes) -> tuple[CachedAnswer, bool]:
        """The content's answer, perhaps still to come, and whether it is new here.

        Whoever gets True has to fill the answer in.
        """
        ...

    def commit(self) -> None:
        """Keep for good what has been filled in."""
        ...


class MemoryCache:
    """The answers of the last `kept` contents, in this process's memory."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._known: OrderedDict[bytes, CachedAnswer] = OrderedDict()

    def claim(self, digest: bytes) -> tuple[CachedAnswer, bool]:
        """See `AnswerCache`."""
        known = self._known.get(digest)
        if known is not None:
            return known, False
        known = self._known[digest] = CachedAnswer()
        if len(self._known) > self._kept:
            self._known.popitem(last=False)
        return known, True

    def commit(self) -> None:
        """Nothing to do: it ends with the process."""


class DiskCache:
    """Any number of answers, in a SQLite file that outlives a killed process."""

    def __init__(self, path: Path) -> None:
        self._open: dict[bytes, CachedAnswer] = {}  # claimed since the last commit
        self._connection = sqlite3.connect(path)
        # A killed process loses nothing that way; a crashed machine may lose the end, and then
        # encodes copies of it again.
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS seen"
            " (digest BLOB PRIMARY KEY, answer TEXT NOT NULL, vector BLOB) WITHOUT ROWID"
        )

    def claim(self, digest: bytes) -> tuple[CachedAnswer, bool]:
        """See `AnswerCache`."""
        known = self._open.get(digest)
        if known is not None:
            return known, False
        found = self._connection.execute(
            "SELECT answer, vector FROM seen WHERE digest = ?", (digest,)
        ).fetchone()
        if found is not None:
            vector = None if found[1] is None else np.frombuffer(found[1], np.float32)
            return CachedAnswer(cast("Row", json.loads(found[0])), vector), False
        known = self._open[digest] = CachedAnswer()
        return known, True

    def commit(self) -> None:
        """See `AnswerCache`."""
        filled = [(digest, known) for digest, known in self._open.items() if known.row is not None]
        with self._connection:
            self._connection.executemany(
                "INSERT OR IGNORE INTO seen VALUES (?, ?, ?)",
                (
                    (
                        digest,
                        json.dumps(known.row),
                        None if known.vector is None else known.vector.tobytes(),
                    )
                    for digest, known in filled
                ),
            )
        for digest, _ in filled:
            del self._open[digest]

    def close(self) -> None:
        """End the connection."""
        self._connection.close()
