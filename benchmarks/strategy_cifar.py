"""Does the toolkit help? Checklist, search and fit on a small CIFAR-10: `make strategy-cifar`.

    python -m benchmarks.strategy_cifar --data ../shared/data [--write docs/strategy/cifar10.md]

Twice: a linear head on the embedded model's features, and a small CNN from scratch. The tuned
recipe stands against the same model with default settings (Adam, 1e-3, no regularisation), over 3
seeds; then one technique at a time is added to the default.

What judges is kept apart from what is judged: of the 200 training images a class, 40 are set aside
(near-duplicates stay together), and the checklist, the search and early stopping see no others.
val.zip is read once a run, after its last step, for the tables. All runs train on the same 160.

Every result is kept in --cache; an interrupted or limited call (--limit, exit code 3) is continued
by the next. What is written before all techniques were measured names those that are missing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.strategy_cells import Cells, OutOfTime, Result
from benchmarks.strategy_page import Measured, page, show, wins
from benchmarks.strategy_recipes import CNN, HEAD, Contest
from models import load_encoder
from training import (
    Dataset,
    ImageFolder,
    Recipe,
    Samples,
    Views,
    checklist,
    encode,
    fit,
    pixels,
    tune,
)
from training.augment import multicrop_probabilities
from training.averaging import ensemble_answers
from training.data import split

SEEDS = (0, 1, 2)
TEMPLATES = ("a photo of a {}", "a picture of a {}", "{}")
EDGE = 24  # pixels; 32 would take half as long again
SHARE = 0.2  # of the training images, to judge by
UNFINISHED = 3  # exit code
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, eq=False)
class Judged:
    """inside: trains and judges; plain: the same without extra views; outside: for the tables."""

    inside: Dataset
    plain: Dataset
    outside: Samples

    @classmethod
    def of(cls, data: Dataset) -> Judged:
        """Split the training side of `data`; its validation side is the outside."""
        assert data.train.groups is not None
        train, judge = split(
            data.train.labels.tolist(),
            data.train.groups.tolist(),
            data.classes,
            share=SHARE,
            seed=0,
        )
        inside = data.fold(train, judge)
        one_view = replace(inside.train, inputs=inside.train.first_views())
        plain = replace(
            inside, train=one_view, val=replace(inside.val, inputs=inside.val.first_views())
        )
        return cls(inside, plain if inside.train.inputs.ndim == 3 else inside, data.val)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, print it all; 1 if a tuned recipe doesn't win."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar10/")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "strategy-cifar")
    parser.add_argument("--write", type=Path, help="also write the page here")
    parser.add_argument("--limit", type=float, help="seconds; then stop, to be called again")
    options = parser.parse_args(arguments)
    cells = Cells(options.cache, limit=options.limit)
    measured: list[Measured] = []
    try:
        for contest, data in contests(options.data / "cifar10", options.cache):
            measured.append(measure(contest, data, cells))
            print(show(measured[-1]), flush=True)
    except OutOfTime:
        pass
    if measured and options.write is not None:
        page(measured, options.write, cells.folder)
    if len(measured) < 2 or any(each.missing for each in measured):
        print(f"unfinished: {cells.fresh} more results kept in {options.cache}; call again")
        return UNFINISHED
    return 0 if all(wins(each) for each in measured) else 1


def contests(source: Path, cache: Path) -> list[tuple[Contest, Judged]]:
    """Both models with their data."""
    with tempfile.TemporaryDirectory() as temporary:
        for name in ("train", "val"):
            with zipfile.ZipFile(source / f"{name}.zip") as archive:
                archive.extractall(Path(temporary) / name)
        folder = ImageFolder(Path(temporary) / "train", val=Path(temporary) / "val")
        features = encode(
            load_encoder("everyday"),
            folder,
            views=Views(count=4),
            templates=TEMPLATES,
            cache=cache / "features",
        )
        images = pixels(folder, size=EDGE)
    return [(HEAD, Judged.of(features)), (CNN, Judged.of(images))]


def measure(
    contest: Contest, data: Judged, cells: Cells, *, seeds: Sequence[int] = SEEDS
) -> Measured:
    """Checklist, search, fit; then one technique at a time."""
    digest = data.inside.digest

    def look() -> Result:
        report = checklist(contest.base, data.inside, budget=contest.budget)
        report.plot(cells.path(f"{contest.name}-checklist.png"))
        return {"text": str(report), "suggestion": report.suggestion.to_yaml()}

    checked = cells.get(
        f"{contest.name} checklist", (contest.base.digest, contest.budget, digest), look
    )
    _say(contest, "checklist", checked)
    suggestion = Recipe.from_yaml(checked["suggestion"])
    space = contest.space(suggestion)

    def search() -> Result:
        found = tune(
            space,
            data.inside,
            recipe=suggestion,
            trials=contest.trials,
            study=cells.path(f"{contest.name}-{suggestion.digest[:12]}.sqlite3"),
        )
        found.plot_importances(cells.path(f"{contest.name}-importances.png"))
        return {
            "best": found.best.to_yaml(),
            "value": found.value,
            "trials": [(t.number, t.value, t.state, dict(t.parameters)) for t in found.trials],
        }

    searched = cells.get(
        f"{contest.name} search", (suggestion.digest, repr(space), contest.trials, digest), search
    )
    _say(contest, "search", searched)
    best = Recipe.from_yaml(searched["best"])

    def over_seeds(label: str, recipe: Recipe, *, views: bool) -> Result:
        side = data.inside if views else data.plain
        result = cells.get(
            f"{contest.name} {label}",
            (recipe.digest, tuple(seeds), side.digest),
            lambda: run_seeds(recipe, side, data.outside, seeds),
        )
        _say(contest, label, result)
        return result

    tuned = over_seeds("tuned", best, views=True)
    rows: list[tuple[str, Result]] = []
    missing = [row.label for row in contest.rows]
    for row in contest.rows:
        recipe = contest.default.replace(**row.changes)
        try:
            rows.append((row.label, over_seeds(row.label, recipe, views=row.views)))
        except OutOfTime:
            if not rows:
                raise  # without the default there is nothing to compare with
            break
        missing.remove(row.label)
    return Measured(
        contest, checked, searched, tuned, rows, tuple(missing), _sizes(data), _zero_shot(data)
    )


def run_seeds(recipe: Recipe, data: Dataset, outside: Samples, seeds: Sequence[int]) -> Result:
    """Train once a seed; accuracies on `outside`, of the runs and of them together."""
    inputs, labels = outside.first_views(), outside.labels
    runs = [fit(recipe.replace(seed=seed), data) for seed in seeds]

    def share(answers: torch.Tensor) -> float:
        return float((answers == labels).double().mean())

    networks = [run.network for run in runs]
    crops = [multicrop_probabilities(n, inputs) for n in networks] if inputs.ndim == 4 else []
    return {
        "accuracy": [share(run.predict(inputs)) for run in runs],
        "judged": [run.metrics["val/accuracy"] for run in runs],
        "train": [run.metrics["train/accuracy"] for run in runs],
        "epochs": [len(run.history.epochs) for run in runs],
        "verdicts": [str(run.diagnosis.verdict) for run in runs],
        "mean": share(ensemble_answers(networks, inputs)),
        "vote": share(ensemble_answers(networks, inputs, combine="vote")),
        "crops": [share(probabilities.argmax(dim=1)) for probabilities in crops],
        "history": runs[0].history.to_json(),
    }


def _sizes(data: Judged) -> tuple[int, int, int]:
    return len(data.inside.train), len(data.inside.val), len(data.outside)


def _zero_shot(data: Judged) -> float | None:
    words = data.inside.zero_shot
    if words is None:
        return None
    answers = words.logits(data.outside.first_views()).argmax(dim=1)
    return float((answers == data.outside.labels).double().mean())


def _say(contest: Contest, what: str, result: Result) -> None:
    numbers = ", ".join(f"{value:.1%}" for value in result.get("accuracy", []))
    print(f"{contest.name}: {what} {numbers} ({result['seconds']} s)", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
