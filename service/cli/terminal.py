"""Results to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from indexer import Progress

# What is done sooner needs no progress; a log gets a line this often, in seconds.
_PATIENCE = 2.0


def complain(message: str) -> None:
    """One line on stderr."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)


def note(message: str) -> None:
    """Something to know beside the result."""
    print(message, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """One JSON value on one line of stdout."""
    print(json.dumps(value, ensure_ascii=False))


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """Columns as wide as they need to be, on stdout; nothing is cut."""
    lines = [head, *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        print("  ".join(cells).rstrip())


class Reporter:
    """Shows how far a long command is: bars on a terminal, a line every two seconds in a log.

    Nothing at all before two seconds have passed.
    """

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._next = time.monotonic() + _PATIENCE

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, progress: Progress) -> None:
        """Report one step."""
        if self._bars is not None:
            self._draw(self._bars, progress)
        elif time.monotonic() >= self._next:
            if sys.stderr.isatty():
                self._draw(self._start_bars(), progress)
            else:
                self._next = time.monotonic() + _PATIENCE
                note(f"{progress.stage}: {progress.done:,} of {progress.total:,}")

    @contextlib.contextmanager
    def phase(self, stage: str) -> Iterator[None]:
        """Work of unknown length, such as loading a model."""
        if sys.stderr.isatty():
            from rich.console import Console

            with Console(stderr=True).status(stage):
                yield
        else:
            yield

    def _start_bars(self) -> Bars:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bars = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._bars.start()
        return self._bars

    def _draw(self, bars: Bars, progress: Progress) -> None:
        task = self._tasks.get(progress.stage)
        if task is None:
            task = self._tasks[progress.stage] = bars.add_task(progress.stage, total=progress.total)
        bars.update(task, completed=progress.done, total=progress.total)
