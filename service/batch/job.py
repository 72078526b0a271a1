"""A whole run: what is missing goes through the engine into the journal, then into the results."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from indexer import Progress
from indexer.vectors.embedding import OnProgress
from service.batch.engines import Engine
from service.batch.errors import RowFailedError
from service.batch.journal import Journal
from service.batch.results import Results, is_complete, publish


@dataclass(frozen=True)
class Summary:
    """How a run ended.

    files: the results, absolute
    images, failed, duplicates: of all rows; resumed: rows that an earlier run had done
    seconds: that this run took, listing and loading the model left out
    """

    files: tuple[Path, ...]
    images: int
    failed: int
    duplicates: int
    resumed: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Of the images done in this run."""
        return (self.images - self.resumed) / self.seconds if self.seconds else 0.0


def run_job(
    journal: Journal,
    engine: Engine,
    results: Results,
    *,
    dim: int,
    strict: bool = False,
    on_progress: OnProgress | None = None,
) -> Summary:
    """Do what isn't done yet and put the results in place; the journal is gone afterwards.

    dim: length of a vector; strict: stop at the first image that can't be read
    Raises: RowFailedError; what the engine raises. What is done is kept for the next run.
    """
    began, resumed = time.monotonic(), journal.done
    if on_progress:
        on_progress(Progress("classifying", resumed, journal.total))
    if not is_complete(journal):
        for result in engine.results(journal.missing()):
            bad = next((row for row in result.rows if row["error"] is not None), None)
            if strict and bad is not None:
                raise RowFailedError(f"{bad['file']}: {bad['error']}")
            journal.add(result)
            if on_progress:
                on_progress(Progress("classifying", journal.done, journal.total))
    files = publish(journal, results, dim=dim)
    summary = Summary(
        files=tuple(files),
        images=journal.total,
        failed=sum(part.failed for part in journal.parts),
        duplicates=sum(part.duplicates for part in journal.parts),
        resumed=resumed,
        seconds=time.monotonic() - began,
    )
    journal.remove()
    return summary
