"""A fine-tuning job as it is written down, and what happened to it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

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
