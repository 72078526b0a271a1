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
        self._begun: dict[str, tuple[float, int]] = {}
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
        now = time.monotonic()
        # What was done before the first report, by an earlier run perhaps, tells nothing of speed.
        since, before = self._begun.setdefault(progress.stage, (now, progress.done))
        rate = (progress.done - before) / (now - since) if now > since else 0.0
        if self._bars is not None:
            self._draw(self._bars, progress, rate)
        elif now >= self._next:
            if sys.stderr.isatty():
                self._draw(self._start_bars(), progress, rate)
            else:
                self._next = now + _PATIENCE
                done = f"{progress.done:,} of {progress.total:,}"
                note(f"{progress.stage}: {done}{_pace(progress, rate)}")

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
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._bars.start()
        return self._bars

    def _draw(self, bars: Bars, progress: Progress, rate: float) -> None:
        task = self._tasks.get(progress.stage)
        if task is None:
            task = bars.add_task(progress.stage, total=progress.total, rate="")
            self._tasks[progress.stage] = task
        shown = f"{rate:,.1f}/s" if rate else ""
        bars.update(task, completed=progress.done, total=progress.total, rate=shown)


def _pace(progress: Progress, rate: float) -> str:
    """How quick it goes and how long it will take; nothing until that is known."""
    if not rate:
        return ""
    left = round((progress.total - progress.done) / rate)
    hours, minutes, seconds = left // 3600, left // 60 % 60, left % 60
    clock = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return f", {rate:,.1f} a second, {clock} left"
