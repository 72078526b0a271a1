"""Contents that were seen already, so that copies of an image are encoded once.

`claim` is asked in the order in which images go to the encoder; what it answers then depends on
the images alone, not on how quick anything was.
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

# Of the default's answers, about 60 MB.
_KEPT = 50_000


@dataclass
class Known:
    """The answer of one content; filled in once it is there.

    row: of the first image that had it; vector: float32 [D], if vectors are wanted
    """

    row: Row | None = None
    vector: Vectors | None = None


class Seen(Protocol):
    """Contents by digest. Used from one thread."""

    def claim(self, digest: bytes) -> tuple[Known, bool]:
        """The content's answer, perhaps still to come, and whether it is new here.

        Whoever gets True has to fill the answer in.
        """
        ...

    def commit(self) -> None:
        """Keep for good what has been filled in."""
        ...


class MemorySeen:
    """The last `kept` contents of this process."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._known: OrderedDict[bytes, Known] = OrderedDict()

    def claim(self, digest: bytes) -> tuple[Known, bool]:
        """See `Seen`."""
        known = self._known.get(digest)
        if known is not None:
            return known, False
        known = self._known[digest] = Known()
        if len(self._known) > self._kept:
            self._known.popitem(last=False)
        return known, True

    def commit(self) -> None:
        """Nothing to do: it ends with the process."""


class DiskSeen:
    """Any number of contents, in a SQLite file that outlives a killed process."""

    def __init__(self, path: Path) -> None:
        self._open: dict[bytes, Known] = {}  # claimed since the last commit
        self._connection = sqlite3.connect(path)
        # A killed process loses nothing that way; a crashed machine may lose the end, and then
        # encodes copies of it again.
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS seen"
            " (digest BLOB PRIMARY KEY, answer TEXT NOT NULL, vector BLOB) WITHOUT ROWID"
        )

    def claim(self, digest: bytes) -> tuple[Known, bool]:
        """See `Seen`."""
        known = self._open.get(digest)
        if known is not None:
            return known, False
        found = self._connection.execute(
            "SELECT answer, vector FROM seen WHERE digest = ?", (digest,)
        ).fetchone()
        if found is not None:
            vector = None if found[1] is None else np.frombuffer(found[1], np.float32)
            return Known(cast("Row", json.loads(found[0])), vector), False
        known = self._open[digest] = Known()
        return known, True

    def commit(self) -> None:
        """See `Seen`."""
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
