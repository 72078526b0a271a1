"""`fit`: one recipe on one data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from training.data.dataset import Dataset
from training.errors import CheckpointError, RecipeError
from training.loop.checkpoint import load_checkpoint
from training.loop.hooks import Callback
from training.loop.pipeline import build_pipeline
from training.loop.run import Run
from training.loop.session import Session
from training.randomness import preserved, seed_all
from training.recipe import Recipe


def fit(
    recipe: Recipe,
    data: Dataset,
    *,
    model: nn.Module | None = None,
    callbacks: Sequence[Callback] = (),
    run_dir: str | Path | None = None,
    resume: str = "auto",
    checkpoint_every: int | None = None,
    device: str = "cpu",
    stage: str = "",
    watched: bool = True,
) -> Run:
    """Train.

    model: a network of your own, for the method GivenModel; it is copied, not changed
    callbacks: hooks, which may watch and stop
    run_dir: folder for checkpoints and the history; None keeps nothing
    resume: "auto" goes on from a checkpoint in run_dir if there is one, "never" starts anew, "must"
    refuses to
    checkpoint_every: steps between checkpoints, besides the one after each epoch
    stage: for hooks, which see it as `RunView.stage`
    watched: False leaves out all that only a reader wants: facts, the epochs' metrics and health,
    and so the diagnosis; the weights are the same

    The caller's random states are left as they were.

    Raises: RecipeError for a recipe that doesn't fit the data; CheckpointError for a checkpoint of
        another recipe or other data; HookError for a hook that changed the run; TrainingError where
        nothing can be learnt at all.
    """
    if resume not in ("auto", "never", "must"):
        raise RecipeError(
            f'resume must be "auto", "never" or "must", got {resume!r}', param="resume"
        )
    _check(recipe, data, watched)
    with preserved():
        seed_all(recipe.seed)
        pipeline = build_pipeline(recipe, data, model).to(device)
        folder = None if run_dir is None else Path(run_dir)
        session = Session(recipe, data, pipeline, callbacks, folder, checkpoint_every, device)
        session.view.stage, session.watched = stage, watched
        if not recipe.method.trained:
            return session.closed_form()
        checkpoint = load_checkpoint(folder) if folder is not None and resume != "never" else None
        if checkpoint is None and resume == "must":
            raise CheckpointError(
                "there is no checkpoint to resume from; leave resume out", param="resume"
            )
        return session.train(checkpoint)


def _check(recipe: Recipe, data: Dataset, watched: bool) -> None:
    if recipe.stop is not None and not watched:
        raise RecipeError("early stopping watches the metrics: leave watched on", param="stop")
    if recipe.stop is not None and recipe.stop.monitor.startswith("val") and not len(data.val):
        raise RecipeError(
            f"early stopping watches {recipe.stop.monitor}, but there is no validation split",
            param="stop",
        )
