"""Work that outlives its request: numbered, bounded in number, and to be followed while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from indexer import Progress
from indexer.errors import ConflictError
from models.errors import ClipdexError
from service.errors import NotReadyError, QueueFullError, UnforeseenError, UnknownJobError

log = logging.getLogger("clipdex")
_KEPT = 200  # finished jobs that can still be asked for
_MOST_UNFINISHED = 32
_PAUSE = 0.1  # seconds between two reports of one job
_AT_ONCE = 2  # the encoder takes them in turns anyway

State = Literal["queued", "running", "succeeded", "failed"]


@dataclass(eq=False)
class Job:
    """One piece of work.

    kind: what it does, such as "build"
    index: the name of the index that it changes
    progress: the last that was reported
    result: what it came to, once it has succeeded
    """

    id: str
    kind: str
    index: str
    state: State = "queued"
    created: str = field(default_factory=lambda: _now())
    finished: str | None = None
    progress: Progress | None = None
    result: dict[str, Any] | None = None
    error: ClipdexError | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def done(self) -> bool:
        """Whether it has ended, well or badly."""
        return self.state in ("succeeded", "failed")

    def report(self, progress: Progress) -> None:
        """Note how far it is. Call on the event loop."""
        self.progress = progress
        self._tell()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


Work = Callable[[Job], Awaitable[dict[str, Any]]]


class JobRegistry:
    """The jobs of this process. Lives on the event loop."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(_AT_ONCE)

    def list(self) -> list[Job]:
        """All that are known, the newest first."""
        return list(reversed(self._jobs.values()))

    def get(self, job_id: str) -> Job:
        """One job. Raises: UnknownJobError."""
        try:
            return self._jobs[job_id]
        except KeyError as error:
            raise UnknownJobError(
                f"there is no job {job_id!r}; the last {_KEPT} finished ones are kept", param="id"
            ) from error

    def check_free(self, index: str) -> None:
        """Raises: ConflictError if an unfinished job changes this index."""
        for job in self._jobs.values():
            if job.index == index and not job.done:
                raise ConflictError(
                    f"the index {index!r} is being changed by the job {job.id}; try again when "
                    "that is done",
                    param="index",
                )

    def start(self, kind: str, index: str, work: Work) -> Job:
        """Begin work on an index.

        Raises: ConflictError while another job changes it; QueueFullError if too many wait.
        """
        self.check_free(index)
        if sum(not job.done for job in self._jobs.values()) >= _MOST_UNFINISHED:
            raise QueueFullError(f"{_MOST_UNFINISHED} jobs are waiting; try again later")
        job = Job(secrets.token_hex(8), kind, index)
        self._jobs[job.id] = job
        task = asyncio.create_task(self._run(job, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    async def follow(self, job: Job) -> AsyncIterator[Job]:
        """The job as it is now, then after every change, until it has ended."""
        while True:
            changed = job.changed
            yield job
            if job.done:
                return
            await asyncio.sleep(_PAUSE)
            await changed.wait()

    async def stop(self) -> None:
        """Cancel what runs and wait until it has ended."""
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, job: Job, work: Work) -> None:
        try:
            async with self._places:
                job.state = "running"
                job._tell()
                job.result = await work(job)
        except ClipdexError as error:
            job.error = error
        except asyncio.CancelledError:
            job.error = NotReadyError("the server was stopped; start the job again")
            raise
        except Exception as error:
            log.exception("job %s failed", job.id)
            job.error = UnforeseenError(repr(error))
        finally:
            job.state = "succeeded" if job.result is not None else "failed"
            job.finished = _now()
            job._tell()
            self._forget_old()

    def _forget_old(self) -> None:
        finished = [job.id for job in self._jobs.values() if job.done]
        for job_id in finished[:-_KEPT]:
            del self._jobs[job_id]


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
