"""The process of one fine-tuning job: `python -m service.finetuning.process`.

Its server writes one line of JSON to its stdin and keeps the pipe open: {"job": ID, "settings":
{...}}. A second line asks it to stop. When the pipe closes, the server has died, and this process
goes too, at once: whatever it was doing, the next one goes on from the last checkpoint.

What it finds out, it writes into the queue's file; what it prints goes to the job's log.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from models import load_encoder
from models.errors import ClipdexError
from service.errors import JobStoppedError
from service.finetuning.queue import JobQueue, Record
from service.settings import MEGA, Settings

if TYPE_CHECKING:
    from models import Encoder

log = logging.getLogger("clipdex")
STOPPED = 75  # exit code: it was told to stop; nothing is wrong
_NICE = 19
_ALLOCATION = "allocate memory"  # torch's words for what is a MemoryError elsewhere
Load = Callable[[Settings], "Encoder"]


def main(*, load: Load | None = None) -> int:
    """Run the job that stands on stdin's first line.

    load: makes the encoder, instead of `load_encoder` with the settings' model
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Unbuffered: a thread that waits in a buffered stdin makes Python abort when it ends.
    pipe = FileIO(sys.stdin.fileno(), closefd=False)
    given = json.loads(pipe.readline())
    settings = Settings(**given["settings"])
    stop = threading.Event()
    threading.Thread(target=_listen, args=(pipe, stop), daemon=True).start()
    _be_modest(settings)
    folder = settings.finetunes / given["job"]
    queue = JobQueue(settings.jobs_file)
    with _alone(folder):
        record = queue.get(given["job"])
        if record.done:
            return 0
        return _run(settings, queue, record, stop, load or _load)


def _run(
    settings: Settings, queue: JobQueue, job: Record, stop: threading.Event, load: Load
) -> int:
    from service.finetuning.training import train

    error: dict[str, str]
    try:
        result = train(settings, queue, job, stop, load(settings))
    except JobStoppedError:
        return STOPPED
    except ClipdexError as exc:
        log.error("the job failed: %s", exc)
        error = {"code": exc.code, "message": exc.message}
    except Exception as exc:
        log.exception("the job failed")
        error = _told(exc, settings)
    else:
        queue.finish(job.id, "succeeded", result=result)
        return 0
    queue.finish(job.id, "failed", error=error)
    return 1


def _told(exc: Exception, settings: Settings) -> dict[str, str]:
    """What a client may know of something unforeseen."""
    if isinstance(exc, MemoryError) or _ALLOCATION in str(exc):
        limit = f"{settings.finetune_memory_mb:,.0f} MB (CLIPDEX_FINETUNE_MEMORY_MB)"
        return {"code": "job_too_large", "message": f"the job needed more memory than {limit}"}
    return {"code": "internal_error", "message": "something went wrong on our side; see its log"}


def _load(settings: Settings) -> Encoder:
    return load_encoder(
        settings.model,
        backend=settings.backend,
        device=settings.device,
        precision=settings.precision,
        cache_dir=settings.cache,
    )


def _listen(pipe: FileIO, stop: threading.Event) -> None:
    if pipe.readline():
        stop.set()
        pipe.readline()
    os._exit(STOPPED)


def _be_modest(settings: Settings) -> None:
    """Leave processors and memory to those who serve."""
    os.nice(_NICE)
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[-settings.finetune_threads :])
    # Of what is written to (RLIMIT_DATA), not of addresses: GPU drivers reserve those by the
    # terabyte, and libraries map gigabytes that they never touch.
    limit = int(settings.finetune_memory_mb * MEGA)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until a process that a dead server has left behind is gone."""
    with (folder / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
