"""Search over recipes: grid, random, quasi-random or TPE, with pruning, in a study that resumes.

Grid: every combination; fine for one or two fields. Random: better where few fields matter
(Bergstra & Bengio 2012). QMC: like random, but evenly spread (Sobol). TPE: learns from the trials
so far (Bergstra et al. 2011). Trials that fall behind the median of the others at the same epoch
are cut off (median pruning).

All of it is optuna; the study is an SQLite file, which resumes and which several processes share.
"""

from __future__ import annotations

import math
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from training.data.dataset import Dataset, load_dataset, save_dataset
from training.errors import RecipeError, TrainingError, require
from training.recipe import Recipe
from training.search.space import Space, apply, check, grid_size
from training.search.study import Search, Trial, optuna_module
from training.steps import seconds

if TYPE_CHECKING:
    from training.search.study import Search


def run_workers(job: Search, data: Dataset, file: Path, *, jobs: int, deadline: float) -> None:
    """Start `jobs` processes and wait for all of them.

    Threads wouldn't do: training seeds the process's random generators. Each worker starts Python
    anew, reads the data from a safetensors file, and takes trials from the study until there are
    enough.

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


METHODS = ("grid", "random", "qmc", "tpe")


METRICS = ("val/accuracy", "val/loss")


@dataclass(frozen=True, eq=False)
class Tuning:
    """What a search found.

    best: the recipe of the best trial; value: its metric; trials: all, in order; study: optuna's
    own
    """

    best: Recipe
    value: float
    trials: tuple[Trial, ...]
    space: Space
    metric: str
    study: Any

    def importances(self) -> dict[str, float]:
        """How much of the metric's spread each field explains; sums to 1. Needs complete trials.

        The same for every field where the trials are too few, or all equally good.
        """
        importance = require("optuna.importance", needed_for="tune()")
        with _without_optunas_warnings():
            found: dict[str, float] = importance.get_param_importances(self.study)
        return found

    def plot_importances(self, path: str | Path) -> Path:
        """Write the importances as a picture."""
        return _plot(self.study, "plot_param_importances", path)

    def plot_parallel(self, path: str | Path) -> Path:
        """Write the parallel-coordinate picture: one line a trial."""
        return _plot(self.study, "plot_parallel_coordinate", path)


def tune(
    space: Space,
    data: Dataset,
    *,
    recipe: Recipe | None = None,
    model: nn.Module | None = None,
    method: str = "tpe",
    trials: int = 20,
    budget: str | float | None = None,
    metric: str = "val/accuracy",
    study: str | Path | None = None,
    jobs: int = 1,
    prune: bool = True,
    seed: int = 0,
    on_trial: Callable[[Trial], None] | None = None,
) -> Tuning:
    """Search `space` (recipe fields by path) around `recipe`, judged on the validation split.

    method: "grid", "random", "qmc" or "tpe"; a grid ends when it is complete
    trials: in all, those of a resumed study counted in; budget: "2min" or seconds, on top
    metric: "val/accuracy" or "val/loss", at its best epoch
    study: SQLite file to keep and resume; None keeps nothing
    jobs: processes that work side by side (they start Python anew, so the caller needs the usual
        `if __name__ == "__main__"`)
    on_trial: called with each trial as it ends (with jobs > 1, with all of them at the end)

    Raises: RecipeError for a space that doesn't fit the recipe, or where nothing was finished.
    """
    base = recipe if recipe is not None else Recipe()
    check(space, base)
    if method not in METHODS:
        raise RecipeError(f"method must be one of {', '.join(METHODS)}", param="method")
    if metric not in METRICS:
        raise RecipeError(f"metric must be one of {', '.join(METRICS)}", param="metric")
    if not len(data.val):
        raise RecipeError("a search needs a validation split to judge by", param="data")
    if jobs > 1 and model is not None:
        raise RecipeError("jobs > 1 can't hand your own model to other processes", param="jobs")
    deadline = math.inf if budget is None else time.monotonic() + seconds(budget)
    total = min(trials, grid_size(space)) if method == "grid" else trials
    search = Search(space, base, method, total, metric, prune, seed)
    file = None if study is None else Path(study)
    if jobs == 1:
        opened = search.open(file)
        search.work(opened, data, model=model, deadline=deadline, on_trial=on_trial)
        return _result(search, opened, data)
    with tempfile.TemporaryDirectory() as temporary:
        shared = file or Path(temporary) / "study.db"
        opened = search.open(shared)
        run_workers(search, data, shared, jobs=jobs, deadline=deadline)
        result = _result(search, opened, data)
    if on_trial is not None:
        for trial in result.trials:
            on_trial(trial)
    return result


def _result(search: Search, study: Any, data: Dataset) -> Tuning:
    """What the study has found so far.

    Raises: RecipeError where no trial is complete.
    """
    if not any(trial.state.name == "COMPLETE" for trial in study.trials):
        raise RecipeError("no trial was finished; give a larger budget", param="budget")
    # a copy in memory, which outlives the file
    copy = optuna_module().create_study(direction=study.direction, sampler=study.sampler)
    copy.add_trials(study.trials)
    best = apply(search.recipe, search.space, copy.best_trial.params)
    return Tuning(
        best=best.replace(chosen_on=data.val.digest),
        value=float(copy.best_trial.value),
        trials=tuple(Trial.of(trial) for trial in study.trials if trial.state.name != "WAITING"),
        space=search.space,
        metric=search.metric,
        study=copy,
    )


def _plot(study: Any, name: str, path: str | Path) -> Path:
    plots = require("optuna.visualization.matplotlib", needed_for="the plots of a search")
    pyplot = require("matplotlib.pyplot", needed_for="the plots of a search")
    target = Path(path)
    with _without_optunas_warnings(), pyplot.rc_context({"backend": "agg"}):
        axes = getattr(plots, name)(study)
        axes.figure.set_size_inches(9, 5)
        axes.figure.savefig(target, dpi=120, bbox_inches="tight")
        pyplot.close(axes.figure)
    return target


@contextmanager
def _without_optunas_warnings() -> Iterator[None]:
    """Of experimental plots, importances that are equal (our docstring says when), and matplotlib's
    of an axis without any length, where all trials are equally good.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna_module().exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", "[\\s\\S]*importances will be equal", UserWarning)
        warnings.filterwarnings("ignore", "Attempting to set identical low and high", UserWarning)
        yield
