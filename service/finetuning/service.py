"""Fine-tuning as the server has it: the queue, what runs its jobs, and who is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from service.errors import NoReportError
from service.finetuning.queue import Event, JobQueue, Record
from service.finetuning.runner import COMMAND, Runner
from service.finetuning.webhook import Notifier
from service.settings import Settings

_LOOK_AGAIN = 0.25  # seconds between two looks for a job's events
_SHOWN = ("name", "index", "method", "val", "views", "seed", "budget", "callback_url", "images")


class Finetunes:
    """All fine-tuning jobs. Lives on the event loop.

    command: of a job's process
    """

    def __init__(self, settings: Settings, *, command: Sequence[str] = COMMAND) -> None:
        self._settings = settings
        self.queue = JobQueue(settings.jobs_file)
        self._notifier = Notifier(settings, self.queue, self.describe)
        self._runner = Runner(settings, self.queue, on_done=self._notifier.ended, command=command)

    def start(self) -> None:
        """Begin to run jobs; returns at once."""
        self._runner.start()

    async def stop(self) -> None:
        """End the jobs' processes; they go on when a server starts again."""
        await self._runner.stop()
        await self._notifier.stop()

    async def add(self, job_id: str, options: Mapping[str, Any]) -> Record:
        """Queue a job whose folder is there."""
        record = await asyncio.to_thread(self.queue.add, job_id, options)
        self._runner.wake()
        return record

    async def cancel(self, job_id: str) -> Record:
        """End a job. Raises: UnknownJobError, ConflictError."""
        record = await asyncio.to_thread(self.queue.cancel, job_id)
        if record.done:
            await self._runner.ended(record)
        return record

    def folder(self, job_id: str) -> Path:
        """Where a job keeps its files."""
        return self._settings.finetunes / job_id

    def report(self, job_id: str) -> Path:
        """A job's HTML report. Blocks. Raises: UnknownJobError, NoReportError."""
        record = self.queue.get(job_id)
        path = self.folder(record.id) / "report.html"
        if not path.exists():
            when = "it has none" if record.done else "it is written when training has ended"
            raise NoReportError(f"the job {job_id} has no report: {when}", param="id")
        return path

    def describe(self, record: Record) -> dict[str, Any]:
        """All that a client sees of a job. Blocks."""
        events = self.queue.events(record.id)
        history = {
            (event.data.get("stage", ""), event.data["epoch"]): event.data
            for event in events
            if event.kind == "epoch"  # one that was trained again after a restart is told again
        }
        steps = [event.data for event in events if event.kind == "progress"]
        return {
            **brief(record),
            "progress": steps[-1] if steps and not record.done else None,
            "history": list(history.values()),
        }

    async def follow(
        self, job_id: str, *, after: int
    ) -> AsyncIterator[tuple[Event | None, dict[str, Any] | None]]:
        """Events with a greater number than `after`, as they come; then the ended job itself.

        Raises: UnknownJobError, JobStoreError.
        """
        while True:
            record = await asyncio.to_thread(self.queue.get, job_id)
            for event in await asyncio.to_thread(self.queue.events, job_id, after=after):
                after = event.number
                yield event, None
            if record.done:
                yield None, await asyncio.to_thread(self.describe, record)
                return
            await asyncio.sleep(_LOOK_AGAIN)


def brief(record: Record) -> dict[str, Any]:
    """A job without its course."""
    cancelling = record.cancelling and not record.done
    return {
        "id": record.id,
        "state": "cancelling" if cancelling else record.state,
        "created": record.created,
        "started": record.started,
        "finished": record.finished,
        "attempts": record.attempts,
        "options": {name: record.options.get(name) for name in _SHOWN},
        "result": record.result,
        "error": None if record.error is None else _error(record.error),
    }


def _error(error: Mapping[str, str]) -> dict[str, str | None]:
    ours = error["code"] == "internal_error"
    kind = "server_error" if ours else "invalid_request_error"
    return {"message": error["message"], "type": kind, "param": None, "code": error["code"]}
