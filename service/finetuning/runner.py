"""Runs the queue's jobs: one at a time by default, each in a process of its own.

Of the servers that share a data folder, the one that holds the lock runs the jobs; the lock goes
with its process, however that ends. A job whose process is killed goes back to the queue, and goes
on from its last checkpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import BinaryIO, TypeVar

from models.errors import ClipdexError
from service.errors import JobStoreError
from service.finetuning.process import STOPPED
from service.finetuning.queue import JobQueue, Record
from service.settings import Settings

log = logging.getLogger("clipdex")
T = TypeVar("T")
COMMAND = (sys.executable, "-m", "service.finetuning.process")
_POLL = 0.1  # seconds
_LOOK_AGAIN = 0.5  # for jobs that came through another process
_SAVE_TIME = 5.0  # how often the running time is written down
_GRACE = 5.0  # what a job may take to end a step before it is killed
_ATTEMPTS = 5  # a job whose process dies this often is at fault itself
_KEPT = 200  # finished jobs
_SECRETS = {"callback_secret"}  # nothing that a job's process needs
# What a job needs only until it has ended.
_SCRATCH = ("images", "features", "run")
STAGED = ".staged-"  # of uploads that are being looked through
_LONG_AGO = 24 * 3600.0  # seconds after which such a folder was left by a server that died
OnDone = Callable[[Record], None]


class Runner:
    """Begins, watches and ends the jobs' processes. Lives on the event loop.

    command: of a job's process, see `service.finetuning.process`
    on_done: told of every job that has ended, and at the start of those whose callback hasn't been
        dealt with
    """

    def __init__(
        self,
        settings: Settings,
        queue: JobQueue,
        *,
        on_done: OnDone,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._on_done = on_done
        self._command = command
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look for jobs; returns at once."""
        self._loop = asyncio.create_task(self._forever())

    def wake(self) -> None:
        """Look for jobs now: there is a new one, or one was cancelled."""
        self._wake.set()

    async def stop(self) -> None:
        """End the processes; their jobs go back to the queue."""
        if self._loop is not None:
            self._loop.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(self._loop, *self._tasks, return_exceptions=True)

    async def _forever(self) -> None:
        # A server that nobody sends jobs to makes no file and no folder.
        while not self._settings.jobs_file.exists():
            await self._pause(_LOOK_AGAIN)
        if self._settings.finetune_jobs == 0:
            return  # another server runs them
        while (lock := self._lock()) is None:
            await asyncio.sleep(_LOOK_AGAIN)
        with lock:
            ready = False
            while True:
                try:
                    if not ready:
                        for record in await _thread(self._recover):
                            self._on_done(record)
                        ready = True
                    await self._begin_jobs()
                except JobStoreError as error:
                    log.error("%s", error)
                    await asyncio.sleep(_LOOK_AGAIN)
                await self._pause(_LOOK_AGAIN)

    async def _begin_jobs(self) -> None:
        while len(self._tasks) < self._settings.finetune_jobs:
            job = await _thread(self._queue.claim)
            if job is None:
                return
            task = asyncio.create_task(self._run(job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: self.wake())

    async def _run(self, job: Record) -> None:
        log.info("fine-tuning job %s: attempt %d", job.id, job.attempts)
        try:
            process = await _thread(lambda: self._spawn(job))
        except (ClipdexError, OSError) as error:
            # Its folder was removed, say, or the machine can't start another process.
            log.error("fine-tuning job %s can't be started: %s", job.id, error)
            await self._settle(job, None, overtime=False)
            return
        try:
            overtime = await self._watch(job, process)
            _end(process)
        except asyncio.CancelledError:
            _end(process)
            self._queue.release(job.id, counts=False)
            raise
        except ClipdexError as error:
            log.error("fine-tuning job %s is lost sight of: %s", job.id, error)
            _end(process)
            overtime = False
        await self._settle(job, process.returncode, overtime=overtime)

    def _spawn(self, job: Record) -> subprocess.Popen[bytes]:
        self._queue.tell(job.id, "state", {"state": "running", "attempt": job.attempts})
        folder = self._settings.finetunes / job.id
        threads = str(self._settings.finetune_threads)
        with (folder / "log.txt").open("ab") as output:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
                # Ctrl-C at the server's terminal isn't meant for it. Not a session of its own:
                # Linux shares processors out among sessions first, and being nice counts for
                # nothing then.
                process_group=0,
            )
        settings = self._settings.model_dump(mode="json", exclude=_SECRETS)
        _send(process, json.dumps({"job": job.id, "settings": settings}))
        return process

    async def _watch(self, job: Record, process: subprocess.Popen[bytes]) -> bool:
        """Wait for its end; True if its time was up."""
        limit = self._settings.finetune_minutes * 60
        seen = saved = time.monotonic()
        spent, kill_at = job.seconds, float("inf")
        while process.poll() is None:
            await asyncio.sleep(_POLL)
            now = time.monotonic()
            if now - saved >= _SAVE_TIME:
                spent = await asyncio.to_thread(self._queue.spend, job.id, now - saved)
                saved = now
            if spent + now - saved > limit:
                process.kill()
                await _thread(process.wait)
                return True
            if kill_at == float("inf") and now - seen >= _LOOK_AGAIN:
                seen = now
                if (await _thread(lambda: self._queue.get(job.id))).cancelling:
                    _send(process, "stop")
                    kill_at = now + _GRACE
            if now >= kill_at:
                process.kill()
        return False

    async def _settle(self, job: Record, code: int | None, *, overtime: bool) -> None:
        """Write down what a process that has ended means for its job; no code: it never began."""
        try:
            record = await _thread(lambda: self._settled(job.id, code, overtime))
        except ClipdexError as error:
            log.error("fine-tuning job %s: %s", job.id, error)
            return
        if record.done:
            await self.ended(record)

    async def ended(self, record: Record) -> None:
        """Clean up after a job that has ended, and tell whoever wants to know."""
        await _thread(lambda: self._clear(record))
        self._on_done(record)

    def _settled(self, job_id: str, code: int | None, overtime: bool) -> Record:
        record = self._queue.get(job_id)
        if record.done:
            return record
        if record.cancelling:
            return self._queue.finish(job_id, "cancelled")
        if overtime:
            minutes = f"{self._settings.finetune_minutes:g} minutes (CLIPDEX_FINETUNE_MINUTES)"
            error = {"code": "job_too_long", "message": f"the job took longer than {minutes}"}
            return self._queue.finish(job_id, "failed", error=error)
        if code is not None and code < 0 and record.attempts < _ATTEMPTS:
            log.warning("fine-tuning job %s: %s ended its process", job_id, _signal(code))
            self._queue.release(job_id, counts=True)
        elif code == STOPPED:
            self._queue.release(job_id, counts=False)
        else:
            error = {"code": "job_died", "message": _how_it_died(code)}
            return self._queue.finish(job_id, "failed", error=error)
        return self._queue.get(job_id)

    def _clear(self, record: Record) -> None:
        """Remove what an ended job doesn't need any more, and jobs that ended long ago. Blocks."""
        for name in _SCRATCH:
            shutil.rmtree(self._settings.finetunes / record.id / name, ignore_errors=True)
        for old in self._queue.forget(keep=_KEPT):
            shutil.rmtree(self._settings.finetunes / old, ignore_errors=True)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)
        self._wake.clear()

    def _recover(self) -> list[Record]:
        """Take over what a server that died has left; returns the jobs still to be told. Blocks."""
        self._queue.recover()
        for folder in self._settings.finetunes.glob(f"{STAGED}*"):
            if time.time() - folder.stat().st_mtime > _LONG_AGO:
                shutil.rmtree(folder, ignore_errors=True)
        return self._queue.untold()

    def _lock(self) -> BinaryIO | None:
        """The open file that says who runs the jobs; None while another server holds it."""
        self._settings.finetunes.mkdir(parents=True, exist_ok=True)
        lock = (self._settings.finetunes / ".lock").open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        return lock


def _send(process: subprocess.Popen[bytes], line: str) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended; waiting for it tells how
        process.stdin.write(line.encode() + b"\n")
        process.stdin.flush()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


def _how_it_died(code: int | None) -> str:
    if code is None:
        return "the job's process couldn't be started; the server's log says why"
    how = _signal(code) if code < 0 else f"exit code {code}"
    return (
        f"the job's process ended with {how}, {_ATTEMPTS} times"
        if code < 0
        else (f"the job's process ended with {how}; see its log")
    )


def _signal(code: int) -> str:
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


async def _thread(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)
