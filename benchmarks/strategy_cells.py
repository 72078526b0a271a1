"""Results of long measurements, kept one by one, so that an interrupted program goes on.

A cell is one result: a JSON file named by what it is and by a digest of all that shapes it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Result = dict[str, Any]


class OutOfTime(Exception):
    """The time for this call is up; what is done is kept."""


class Cells:
    """The cells of one folder. limit: seconds after which no new cell is begun (None: never)."""

    def __init__(self, folder: Path, *, limit: float | None = None) -> None:
        self.folder = folder
        self.fresh = 0  # cells measured by this object, not read
        self._until = None if limit is None else time.monotonic() + limit
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str, made_of: object, measure: Callable[[], Result]) -> Result:
        """The stored result, or a new one, with its date and its seconds of work.

        made_of: something whose repr() changes whenever the result would. Raises: OutOfTime.
        """
        digest = hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        file = self.folder / f"{slug}-{digest}.json"
        if file.exists():
            stored: Result = json.loads(file.read_text(encoding="utf-8"))
            return stored
        if self._until is not None and time.monotonic() >= self._until:
            raise OutOfTime
        start = time.monotonic()
        result = {
            **measure(),
            "seconds": round(time.monotonic() - start, 1),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "threads": torch.get_num_threads(),
        }
        beside = file.with_suffix(".tmp")
        beside.write_text(json.dumps(result), encoding="utf-8")
        beside.replace(file)
        self.fresh += 1
        return result

    def path(self, name: str) -> Path:
        """A file of another kind beside the cells."""
        return self.folder / name
