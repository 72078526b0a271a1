"""Trials side by side: processes that share one study file.

Threads wouldn't do: training seeds the process's random generators. Each worker starts Python anew,
reads the data from a safetensors file, and takes trials from the study until there are enough.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from training.data.dataset import Dataset
from training.data.storage import load_dataset, save_dataset
from training.errors import TrainingError

if TYPE_CHECKING:
    from training.search.study import Search


def run_workers(job: Search, data: Dataset, file: Path, *, jobs: int, deadline: float) -> None:
    """Start `jobs` processes and wait for all of them.

    Raises: TrainingError if one of them failed.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as temporary:
        shared = Path(temporary) / "data.safetensors"
        save_dataset(shared, data)
        left = deadline - time.monotonic()  # clocks of processes needn't agree
        workers = [
            context.Process(target=_worker, args=(job, str(shared), str(file), left, number))
            for number in range(1, jobs + 1)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    failed = [worker.exitcode for worker in workers if worker.exitcode]
    if failed:
        raise TrainingError(
            f"{len(failed)} of {jobs} search processes failed (exit code {failed[0]}); their error "
            "stands above, and the finished trials are in the study"
        )


def _worker(job: Search, data: str, file: str, left: float, number: int) -> None:
    torch.set_num_threads(1)  # the processes share the cores
    deadline = time.monotonic() + left
    study = job.open(Path(file), worker=number)
    job.work(study, load_dataset(Path(data)), model=None, deadline=deadline)
