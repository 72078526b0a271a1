"""Fine-tuning jobs as runs in MLflow: the callback `mlflow` (CLIPDEX_CALLBACKS=mlflow).

Needs the extra `mlflow`. Where the runs go is MLflow's own affair: MLFLOW_TRACKING_URI and its kin.
One experiment an adapter, one run a job; a job that goes on after a kill goes on in its run.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

from models.extras import how_to_install
from service.errors import HookUnusableError
from service.finetuning.hooks import JobInfo
from training import Callback, RunView
from training.parts import to_plain

_JOB = "clipdex.job"
_METRICS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr")
_LONGEST = 500  # characters of one parameter that every MLflow server takes


class Tracker(Protocol):
    """What of `mlflow.MlflowClient` is used here."""

    def get_experiment_by_name(self, name: str) -> Any:
        """The experiment, or None."""
        ...

    def create_experiment(self, name: str) -> str:
        """Its id."""
        ...

    def search_runs(self, experiment_ids: list[str], filter_string: str) -> Any:
        """The runs that match."""
        ...

    def create_run(
        self, experiment_id: str, *, tags: dict[str, str] | None = None, run_name: str | None = None
    ) -> Any:
        """A run; its id is `.info.run_id`."""
        ...

    def log_param(self, run_id: str, key: str, value: Any) -> Any:
        """Write a parameter down, once."""
        ...

    def log_metric(
        self,
        run_id: str,
        key: str,
        value: float,
        timestamp: int | None = None,
        step: int | None = None,
    ) -> None:
        """Write a number down."""
        ...

    def set_terminated(self, run_id: str, status: str | None = None) -> None:
        """The run has ended."""
        ...


class MlflowLogger(Callback):
    """Parameters at the start, an epoch's numbers at its end.

    tracker: instead of MLflow's own client
    """

    def __init__(self, info: JobInfo, tracker: Tracker | None = None) -> None:
        self._info = info
        self._tracker = _client() if tracker is None else tracker
        self._run: str | None = None

    def on_fit_start(self, run: RunView) -> None:
        """Begin or find the run."""
        if self._run is None:
            self._run = self._begin()
            self._log_params(self._run, run)

    def on_epoch_end(self, run: RunView) -> None:
        """Log the epoch's row; trainings that only choose settings stand apart, by their stage."""
        assert self._run is not None
        stage = f"{run.stage}/" if run.stage else ""
        for name, value in run.metrics.items():
            if name in _METRICS and math.isfinite(value):
                self._tracker.log_metric(self._run, f"{stage}{name}", value, step=run.epoch + 1)

    def on_fit_end(self, run: RunView) -> None:
        """Close the run, after the training that counts."""
        assert self._run is not None
        if not run.stage:
            self._tracker.set_terminated(self._run, status="FINISHED")

    def _begin(self) -> str:
        name = f"clipdex/{self._info.adapter}"
        known = self._tracker.get_experiment_by_name(name)
        experiment = self._tracker.create_experiment(name) if known is None else known.experiment_id
        found = self._tracker.search_runs([experiment], f"tags.`{_JOB}` = '{self._info.id}'")
        if found:
            return str(found[0].info.run_id)
        tags = {_JOB: self._info.id}
        run = self._tracker.create_run(experiment, tags=tags, run_name=self._info.id)
        return str(run.info.run_id)

    def _log_params(self, run_id: str, run: RunView) -> None:
        plain = dict(to_plain(run.recipe)["Recipe"])
        plain |= {"index": self._info.index, "method_asked": self._info.method}
        plain |= {"classes": len(run.data.classes), "images": len(run.data.train)}
        for key, value in plain.items():
            self._tracker.log_param(run_id, key, str(value)[:_LONGEST])


def _client() -> Tracker:
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise HookUnusableError(
            f"the callback 'mlflow' needs MLflow: {how_to_install('mlflow')}", param="callbacks"
        ) from error
    client: Tracker = MlflowClient()
    return client
