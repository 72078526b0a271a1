"""One search: its optuna study and the trials in it."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from training.data.dataset import Dataset
from training.errors import RecipeError, require
from training.loop import Callback, Run, RunView, StopAtTime, fit
from training.recipe import Recipe
from training.search.space import Space, full_grid, suggest


@dataclass(frozen=True)
class Trial:
    """One setting. value: the best epoch's; None unless complete.

    state: "complete", "pruned", "failed" (diverged) or "cut" (by the budget; a resume runs it
    again)
    """

    number: int
    parameters: Mapping[str, Any]
    value: float | None
    state: str

    @classmethod
    def of(cls, trial: Any) -> Trial:
        """An optuna trial in our words."""
        complete = trial.state.name == "COMPLETE"
        names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
        state = "cut" if trial.user_attrs.get("cut") else names.get(trial.state.name, "running")
        return cls(trial.number, dict(trial.params), trial.value if complete else None, state)


@dataclass(frozen=True)
class Search:
    """The settings of a search, without its data."""

    space: Space
    recipe: Recipe
    method: str
    trials: int
    metric: str
    prune: bool
    seed: int

    @property
    def maximise(self) -> bool:
        """Whether more is better."""
        return self.metric.endswith("accuracy")

    def open(self, file: Path | None, *, worker: int = 0) -> Any:
        """The study in `file` (None: in memory), new or resumed, as one of several workers.

        Raises: RecipeError where the file holds another search.
        """
        optuna = optuna_module()
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            storage=None if file is None else f"sqlite:///{file}",
            study_name="clipdex",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)
            if self.prune
            else optuna.pruners.NopPruner(),
            direction="maximize" if self.maximise else "minimize",
            load_if_exists=True,
        )
        # a resumed study must not draw again what it drew before
        study.sampler = self._sampler(optuna, self.seed + 7919 * worker + len(study.trials))
        ranges = sorted((path, repr(values)) for path, values in self.space.items())
        signature = f"{self.recipe.digest} {self.metric} {ranges}"
        known = study.user_attrs.get("search")
        if known is None:
            study.set_user_attr("search", signature)
        elif known != signature:
            raise RecipeError(
                f"the study {file} belongs to another search; give another file", param="study"
            )
        if worker == 0:
            self._queue(study)
        return study

    def work(
        self,
        study: Any,
        data: Dataset,
        *,
        model: nn.Module | None,
        deadline: float,
        on_trial: Callable[[Trial], None] | None = None,
    ) -> None:
        """Run trials until there are enough, or the time is up."""

        def objective(trial: Any) -> float:
            return self._run(trial, data, model, deadline)

        def after(study: Any, frozen: Any) -> None:
            if on_trial is not None:
                on_trial(Trial.of(frozen))
            if finished_trials(study) >= self.trials:
                study.stop()

        left = self.trials - finished_trials(study)
        timeout = None if math.isinf(deadline) else deadline - time.monotonic()
        if left > 0 and (timeout is None or timeout > 0):
            study.optimize(
                objective, n_trials=left, timeout=timeout, callbacks=[after], catch=(_NoValueError,)
            )

    def _run(self, trial: Any, data: Dataset, model: nn.Module | None, deadline: float) -> float:
        recipe = suggest(trial, self.space, self.recipe)
        pruner = _Pruner(trial, self.metric)
        run = fit(recipe, data, model=model, callbacks=[pruner, StopAtTime(deadline)])
        if pruner.pruned:
            raise optuna_module().TrialPruned
        if run.history.stopped == StopAtTime.REASON:
            trial.set_user_attr("cut", True)
            raise _NoValueError("cut by the budget: it can't be compared")
        return self._best_value(run)

    def _best_value(self, run: Run) -> float:
        # an accuracy of infinite logits is a number, but means nothing
        values = [row[self.metric] for row in run.history.epochs if math.isfinite(row["val/loss"])]
        if not values:
            raise _NoValueError("diverged in the first epoch")
        return max(values) if self.maximise else min(values)

    def _queue(self, study: Any) -> None:
        """Line up what is to run first: the rest of a grid, or what an earlier budget cut."""
        trials = study.get_trials(deepcopy=False)
        cut = [t.params for t in trials if t.user_attrs.get("cut")]
        settled = [
            {**t.params, **t.system_attrs.get("fixed_params", {})}
            for t in trials
            if not t.user_attrs.get("cut")
        ]
        wanted = list(full_grid(self.space)) if self.method == "grid" else cut
        for parameters in wanted:
            if parameters not in settled:
                study.enqueue_trial(parameters)
                settled.append(parameters)

    def _sampler(self, optuna: Any, seed: int) -> Any:
        if self.method in ("grid", "random"):  # a grid is queued as a whole
            return optuna.samplers.RandomSampler(seed=seed)
        if self.method == "qmc":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return optuna.samplers.QMCSampler(
                    scramble=True, seed=self.seed, warn_independent_sampling=False
                )
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(10, self.trials // 2))


class _Pruner(Callback):
    """Reports each epoch's metric and stops a run that falls behind."""

    def __init__(self, trial: Any, metric: str) -> None:
        self.pruned = False
        self._trial = trial
        self._metric = metric

    def on_epoch_end(self, run: RunView) -> None:
        """Report and decide."""
        value = run.metrics[self._metric]
        if not math.isfinite(run.metrics["val/loss"]):
            return
        self._trial.report(value, run.epoch)
        if self._trial.should_prune():
            self.pruned = True
            run.stop("pruned: behind the median of the trials so far")


class _NoValueError(Exception):
    """A trial ended without a value that could be compared; optuna marks it as failed."""


def finished_trials(study: Any) -> int:
    """Trials that count: complete, pruned and diverged ones, not those that the budget cut."""
    states = ("COMPLETE", "PRUNED", "FAIL")
    trials = study.get_trials(deepcopy=False)
    return sum(t.state.name in states and not t.user_attrs.get("cut") for t in trials)


def optuna_module() -> Any:
    """The package optuna, told to speak up only when something is wrong."""
    optuna = require("optuna", needed_for="tune()")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
