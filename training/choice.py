"""Which head for these images: the table's default, and where it names two, cross-validation
decides.

Each candidate is trained on the folds of the support set and judged on what the fold held out; the
validation split isn't looked at, so that it can still judge the winner.

Source: the methods' table behind `transfer/advice.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.data.dataset import Dataset
from training.data.splits import folds
from training.heads import GDA, TextHead
from training.loop import fit
from training.method import Method
from training.recipe import Recipe
from training.transfer import advise


@dataclass(frozen=True)
class Choice:
    """method: the winner; why: in a sentence; scores: held-out accuracy by candidate."""

    method: Method
    why: str
    scores: dict[str, float]


def choose_head(
    data: Dataset,
    recipe: Recipe,
    *,
    candidates: Sequence[Method] = (TextHead(), GDA()),
    count: int = 5,
) -> Choice:
    """The head for a data set of features; `recipe` is what trained candidates are trained with.

    Among equals the first candidate wins.
    """
    advice = advise(data.counts, accelerator=False)
    if advice.method == "head":
        return Choice(TextHead(), advice.why, {})
    labels = data.train.labels.numpy()
    groups = None if data.train.groups is None else data.train.groups.numpy()
    right = dict.fromkeys(range(len(candidates)), 0.0)
    total = 0
    for train, held_out in folds(labels, groups, count=count, seed=recipe.seed):
        fold = data.fold(train.tolist(), held_out.tolist())
        total += len(held_out)
        for number, method in enumerate(candidates):
            run = fit(recipe.replace(method=method, stop=None), fold)
            right[number] += run.metrics["val/accuracy"] * len(held_out)
    best = max(right, key=lambda number: right[number])
    scores = {type(candidates[i]).__name__: right[i] / total for i in right}
    shown = ", ".join(f"{name} {accuracy:.1%}" for name, accuracy in scores.items())
    return Choice(candidates[best], f"{advice.why} ({shown})", scores)
