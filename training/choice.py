"""Which method for these images: the table's default, and where it names two, cross-validation
decides; and the rate of a head that is trained.

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


RATES = (3e-3, 1e-2, 3e-2)
FEWEST = 4  # images a class: below, nothing is searched for


def choose_rate(data: Dataset, recipe: Recipe, *, count: int = 3) -> tuple[Recipe, str]:
    """A trained head's recipe with the rate that does best on folds of the support set, and why.

    By held-out accuracy, then by loss. Recipes of closed forms, and those for fewer than 4 images a
    class, come back as they are.
    """
    if not recipe.method.trained or data.shots < FEWEST:
        return recipe, ""
    labels = data.train.labels.numpy()
    groups = None if data.train.groups is None else data.train.groups.numpy()
    parts = [
        data.fold(train.tolist(), held_out.tolist())
        for train, held_out in folds(labels, groups, count=count, seed=recipe.seed)
    ]
    tried = []
    for rate in RATES:
        candidate = recipe.replace(**{"optimizer.lr": rate, "stop": None})
        runs = [fit(candidate, part) for part in parts]
        total = sum(len(part.val) for part in parts)
        accuracy, loss = (
            sum(
                run.metrics[f"val/{key}"] * len(part.val)
                for run, part in zip(runs, parts, strict=True)
            )
            / total
            for key in ("accuracy", "loss")
        )
        tried.append((accuracy, -loss, rate))
    accuracy, _, rate = max(tried)
    chosen = recipe.replace(**{"optimizer.lr": rate})
    return chosen, f"rate {rate:g}, by cross-validation on these images ({accuracy:.1%})"
