"""What a job's process does: read the images, train, report; the work is training.finetune's.

Imports torch: only for that process.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

from indexer import CategoryIndex, IndexStore
from models import Encoder
from service.errors import JobStoppedError
from service.finetuning.hooks import JobInfo, installed_hooks
from service.finetuning.other_categories import load_others, others_of, save_others
from service.finetuning.queue import JobQueue, Record
from service.serving.assignments import Assignments
from service.serving.core import current_of_kind
from service.settings import Settings
from training import Callback, Recipe, RunView, StepResult, diagnose
from training.adapters.store import AdapterStore
from training.finetune import Finetuned, Sources, default_val, finetune_folder

_PAUSE = 1.0  # seconds between two reports of how many images are encoded


class JobCallback(Callback):
    """Writes a job's course into the queue's file, and ends the job within a step if asked to."""

    def __init__(self, queue: JobQueue, job_id: str, stop: threading.Event) -> None:
        self._queue, self._job, self._stop = queue, job_id, stop
        self._begun, self._first = time.monotonic(), 0
        self._told = 0.0  # when `encoded` last wrote

    def tell(self, kind: str, **data: Any) -> None:
        """Append an event."""
        self._queue.tell(self._job, kind, data)

    def check(self) -> None:
        """Raises: JobStoppedError once the job was told to stop."""
        if self._stop.is_set():
            raise JobStoppedError("the job was told to stop")

    def encoded(self, done: int, total: int) -> None:
        """How many images are encoded; written at most once a second."""
        self.check()
        if done == total or time.monotonic() - self._told >= _PAUSE:
            self._told = time.monotonic()
            self.tell("progress", stage="encoding images", done=done, total=total)

    def checked(self, step: StepResult) -> None:
        """A step of the checklist has ended."""
        self.check()
        self.tell(
            "check",
            name=step.name,
            status=str(step.status),
            evidence=step.evidence,
            advice=step.advice,
        )

    def on_fit_start(self, run: RunView) -> None:
        """How much there is to do, and from where it goes on."""
        self.check()
        self._begun, self._first = time.monotonic(), run.step
        self.tell("training", epochs=run.epochs, steps=run.steps, step=run.step, stage=run.stage)

    def on_step_end(self, run: RunView) -> None:
        """Stop here, if that was asked for."""
        self.check()

    def on_epoch_end(self, run: RunView) -> None:
        """The epoch's numbers."""
        row, done = run.metrics, run.step - self._first
        seconds = time.monotonic() - self._begun
        self.tell(
            "epoch",
            epoch=run.epoch + 1,
            epochs=run.epochs,
            step=run.step,
            steps=run.steps,
            stage=run.stage,
            train_loss=row.get("train/loss"),
            train_accuracy=row.get("train/accuracy"),
            val_loss=row.get("val/loss"),
            val_accuracy=row.get("val/accuracy"),
            lr=row.get("lr"),
            eta_seconds=seconds / done * (run.steps - run.step) if done else None,
            diagnosis=str(diagnose(run.history).verdict),
        )
        self.check()


def train(
    settings: Settings, queue: JobQueue, job: Record, stop: threading.Event, encoder: Encoder
) -> dict[str, Any]:
    """Carry the job out, from its last checkpoint if there is one; returns its result.

    Raises: JobStoppedError; whatever reading, training and publishing raise.
    """
    asked, folder = job.options, settings.finetunes / job.id
    progress = JobCallback(queue, job.id, stop)
    info = JobInfo(job.id, asked["name"], asked["index"], asked["method"])
    callbacks = [progress, *installed_hooks(settings.callbacks, info)]
    progress.tell("progress", stage="reading images", done=0, total=asked["images"])
    sources = Sources(
        folder=folder / "images",
        val=default_val(asked["method"]) if asked["val"] is None else asked["val"],
        templates=asked["templates"],
        views=asked["views"],
        seed=asked["seed"],
        cache=folder / "features",
    )
    data = sources.read(encoder, progress.encoded)
    others = folder / "features" / "other-categories.npy"
    if not others.exists():
        save_others(others, others_of(_open_index(settings, asked["index"], encoder), data))
    done = finetune_folder(
        encoder,
        replace(data, others=load_others(others)),
        store=AdapterStore(settings.adapters),
        name=asked["name"],
        method=asked["method"],
        recipe=None if asked["recipe"] is None else Recipe.from_yaml(asked["recipe"]),
        seed=asked["seed"],
        budget=asked["budget"],
        report=folder / "report.html",
        run_dir=folder / "run",
        callbacks=callbacks,
        on_step=progress.checked,
    )
    Assignments(settings.adapters).set_made_for(asked["name"], asked["index"])
    return summary(asked["name"], asked["index"], done)


def _open_index(settings: Settings, name: str, encoder: Encoder) -> CategoryIndex:
    """The current version of the index that the adapter is for."""
    indexes = IndexStore(settings.indexes)
    version = current_of_kind(indexes, name, "categories")
    return indexes.load(name, version, fingerprint=encoder.fingerprint)


def summary(name: str, index: str, done: Finetuned) -> dict[str, Any]:
    """What became of a fine-tuning, as plain data."""
    result: dict[str, Any] = {
        "adapter": name,
        "version": done.version,
        "index": index,
        "method": done.method,
        "changes": done.changes,
        "why": done.why,
        "verdict": str(done.run.diagnosis.verdict),
        "advice": done.run.diagnosis.advice,
        "zero_shot_top1": None,
        "tuned_top1": None,
        "gain": None,
        "gate": None,
        "gate_failures": [],
    }
    if "gate" in done.metrics:
        result |= {
            "zero_shot_top1": done.metrics["zero_shot"]["top1"],
            "tuned_top1": done.metrics["tuned"]["top1"],
            "gain": dict(done.metrics["gain"]),
            "gate": "passed" if done.metrics["gate"]["passed"] else "refused",
            "gate_failures": list(done.metrics["gate"]["failures"]),
        }
    return result
