"""Weight method or heads, and how strong a trained head is: decided on folds of the support set.

A trained head takes the rate, and one that is anchored the strength of its anchor, that do best on
what folds held out; among equals the strongest anchor and the lowest rate win. With fewer than 4
images a class (among other categories, with one) the rate is low and the anchor tight. Which head
it is, `training.judging.leaderboard` decides.

The validation split isn't looked at, so that it can still judge the winner.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

from training.data.dataset import Dataset
from training.data.splits import folds
from training.heads import ProLIP, TextHead
from training.judging.metrics import ranked_logits
from training.loop import fit
from training.loop.facts import scores
from training.names import AUTO
from training.recipe import Recipe
from training.tower import TOWER_METHODS
from training.transfer import advise

FEW_RATE, FEW_ANCHOR = 2e-3, 3.0
RATES = (1e-3, 1e-2)
ANCHORS = (10.0, 1.0, "1/shots")
FEWEST = 4  # images a class
FEWEST_AMONG_OTHERS = 2  # an image left out tells at once whether it is found at all
FOLDS = 5
MANY = 2000  # images: from here one fold tells enough


def choose_method(data: Dataset, *, accelerator: bool) -> tuple[str, str]:
    """What "auto" stands for: a weight method's name and why, or "auto" for the choice of heads.

    accelerator: whether a GPU is at hand. A Dataset without its images' files is for heads, and one
    without a validation split, too: weight methods have no folds.
    """
    able = accelerator and bool(data.train.names) and len(data.val) > 0
    advice = advise(data.distinct_counts, accelerator=able)
    return (advice.method, advice.why) if advice.method in TOWER_METHODS else (AUTO, "")


def choose_strength(data: Dataset, recipe: Recipe) -> tuple[Recipe, str]:
    """A trained head's recipe with the rate and the anchor that do best on folds, and why.

    Recipes of closed forms come back as they are; with fewer than 4 images a class (among other
    categories, with one) the rate is low and the anchor tight.
    """
    if not recipe.method.trained:
        return recipe, ""
    if data.distinct_shots < (FEWEST if data.others is None else FEWEST_AMONG_OTHERS):
        few = recipe.replace(**{"optimizer.lr": FEW_RATE})
        if isinstance(few.method, TextHead | ProLIP):
            few = few.replace(method=replace(few.method, anchor=FEW_ANCHOR))
        return few, f"rate {FEW_RATE:g}, for so few images"
    chosen, accuracy, anchor = _best(data, recipe)
    strength = f"rate {chosen.optimizer.lr:g}"
    if anchor is not None:
        strength += f" and anchor {anchor}"
    return chosen, f"{strength}, by cross-validation on these images ({accuracy:.1%})"


def held_out_accuracy(data: Dataset, recipe: Recipe) -> tuple[float, float]:
    """Accuracy and minus the mean loss of the folds' held-out images, among other categories."""
    labels = data.train.labels.numpy()
    groups = None if data.train.groups is None else data.train.groups.numpy()
    right, loss, count = 0.0, 0.0, 0
    parts = folds(labels, groups, count=FOLDS, seed=recipe.seed)
    for train, held_out in parts if len(labels) <= MANY else parts[:1]:
        part = data.fold(train.tolist(), held_out.tolist())
        run = fit(recipe.replace(stop=None), part, watched=False)
        logits = ranked_logits(run, part, part.val.first_views())
        mean, accuracy = scores(logits, part.val.labels, recipe.loss)
        size = len(part.val)
        right, loss, count = right + accuracy * size, loss + mean * size, count + size
    return right / count, -loss / count


def _best(data: Dataset, recipe: Recipe) -> tuple[Recipe, float, str | float | None]:
    """The best setting of a method, its held-out accuracy, and its anchor if it has one."""
    anchored = isinstance(recipe.method, TextHead | ProLIP)
    grid: list[tuple[str | float | None, float | None]] = [(None, None)]
    if recipe.method.trained:
        grid = list(itertools.product(ANCHORS if anchored else (None,), RATES))
    results = []
    for anchor, rate in grid:
        candidate = recipe
        if isinstance(recipe.method, TextHead | ProLIP) and anchor is not None:
            candidate = candidate.replace(method=replace(recipe.method, anchor=anchor))
        if rate is not None:
            candidate = candidate.replace(**{"optimizer.lr": rate})
        accuracy, likelihood = held_out_accuracy(data, candidate)
        results.append((round(accuracy, 9), candidate, anchor, likelihood))
    best = max(results, key=lambda result: result[0])
    return best[1], best[0], best[2]
