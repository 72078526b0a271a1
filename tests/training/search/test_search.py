from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.samples import features, images
from training import (
    GDA,
    MLP,
    AdamW,
    Choice,
    Constant,
    Cosine,
    LogUniform,
    Mixup,
    Recipe,
    TextHead,
    Trial,
    Uniform,
    Whole,
    tune,
)
from training.data import Retention, load_dataset, save_dataset
from training.errors import RecipeError
from training.search.space import apply, check, decode, encode, grid_size

BASE = Recipe(method=TextHead(anchor=0.0), epochs=3, batch_size=16)
RATES = {"optimizer.lr": LogUniform(1e-3, 1e-1, points=3)}


def data():
    return features(noise=1.2, text_noise=2.5, val=10)


class TestSpace:
    def test_grids(self) -> None:
        assert LogUniform(1e-3, 1e-1, points=3).grid() == pytest.approx([1e-3, 1e-2, 1e-1])
        assert Uniform(0.0, 1.0, points=3).grid() == [0.0, 0.5, 1.0]
        assert Whole(2, 4).grid() == [2, 3, 4]
        assert grid_size({"a": Whole(1, 3), "b": Choice([1, 2])}) == 6

    @pytest.mark.parametrize(
        "value", [None, 3, 0.5, "batch", GDA(alpha=0.5), [Mixup(0.2), Mixup(0.4)], Cosine()]
    )
    def test_choices_as_text(self, value: object) -> None:
        expected = tuple(value) if isinstance(value, list) else value
        assert decode(encode(value)) == expected

    def test_apply(self) -> None:
        space = {
            **RATES,
            "schedule": Choice([Constant(), Cosine()]),
            "augment": Choice([[], [Mixup(0.3)]]),
        }
        stored = {
            "optimizer.lr": 0.02,
            "schedule": encode(Constant()),
            "augment": encode([Mixup(0.3)]),
        }
        recipe = apply(BASE, space, stored)
        assert recipe.optimizer == AdamW(lr=0.02)
        assert recipe.schedule == Constant()
        assert recipe.augment == (Mixup(0.3),)

    def test_mistakes(self) -> None:
        for broken in (
            lambda: LogUniform(0.0, 1.0),
            lambda: Uniform(1.0, 1.0),
            lambda: Whole(3, 2),
            lambda: Choice([]),
            lambda: check({}, BASE),
            lambda: check({"optimizer.rate": Uniform(0, 1)}, BASE),
            lambda: check({"epochs": Choice(["many"])}, BASE),
        ):
            with pytest.raises((RecipeError, TypeError)):
                broken()


@pytest.mark.parametrize("method", ["grid", "random", "qmc", "tpe"])
def test_every_method_finds_a_good_rate(method: str) -> None:
    seen: list[Trial] = []
    found = tune(
        RATES, data(), recipe=BASE, method=method, trials=5, prune=False, on_trial=seen.append
    )
    assert len(found.trials) == len(seen) == (3 if method == "grid" else 5)
    values = [trial.value for trial in found.trials]
    assert found.value == max(values)
    best = next(trial for trial in found.trials if trial.value == found.value)
    chosen = {"optimizer.lr": best.parameters["optimizer.lr"], "chosen_on": data().val.digest}
    assert found.best == BASE.replace(**chosen)
    assert len({trial.parameters["optimizer.lr"] for trial in found.trials}) == len(found.trials)


def test_the_same_seed_finds_the_same() -> None:
    a, b = (tune(RATES, data(), recipe=BASE, method="random", trials=3) for _ in range(2))
    c = tune(RATES, data(), recipe=BASE, method="random", trials=3, seed=1)
    assert [t.parameters for t in a.trials] == [t.parameters for t in b.trials]
    assert [t.parameters for t in a.trials] != [t.parameters for t in c.trials]


def test_loss_is_minimised() -> None:
    found = tune(RATES, data(), recipe=BASE, method="grid", metric="val/loss", prune=False)
    assert found.value == min(trial.value for trial in found.trials)


@pytest.mark.parametrize("method", ["grid", "random", "qmc", "tpe"])
def test_a_study_resumes(method: str, tmp_path: Path) -> None:
    file = tmp_path / "deep" / "study.db"
    first = tune(RATES, data(), recipe=BASE, method=method, trials=2, study=file, prune=False)
    assert len(first.trials) == 2
    whole = tune(RATES, data(), recipe=BASE, method=method, trials=3, study=file, prune=False)
    assert len(whole.trials) == 3
    assert [t.parameters for t in whole.trials[:2]] == [t.parameters for t in first.trials]
    rates = [trial.parameters["optimizer.lr"] for trial in whole.trials]
    assert len(set(rates)) == 3
    again = tune(RATES, data(), recipe=BASE, method=method, trials=3, study=file)
    assert len(again.trials) == 3
    with pytest.raises(RecipeError, match="another search"):
        tune(RATES, data(), recipe=BASE.replace(epochs=2), study=file)


def test_a_budget_cuts_and_a_resume_makes_up_for_it(tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    with pytest.raises(RecipeError, match="larger budget"):
        tune(RATES, data(), recipe=BASE, method="grid", budget=1e-6, study=file)
    slow = BASE.replace(epochs=100_000)
    with pytest.raises(RecipeError, match="larger budget"):
        tune(RATES, data(), recipe=slow, method="grid", budget=1.0, study=tmp_path / "b.db")
    found = tune(RATES, data(), recipe=BASE, method="grid", study=file)
    assert [trial.state for trial in found.trials].count("complete") == 3


def test_what_the_budget_cut_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import training.search.study as module

    file = tmp_path / "study.db"
    real = module.StopAtTime
    cuts = iter([float("inf"), 0.0])

    class Sometimes(real):  # type: ignore[misc, valid-type]
        def __init__(self, deadline: float) -> None:
            super().__init__(next(cuts, deadline))

    monkeypatch.setattr(module, "StopAtTime", Sometimes)
    first = tune(RATES, data(), recipe=BASE, method="grid", trials=2, study=file, prune=False)
    assert [trial.state for trial in first.trials] == ["complete", "cut"]
    whole = tune(RATES, data(), recipe=BASE, method="grid", trials=3, study=file, prune=False)
    complete = [t.parameters["optimizer.lr"] for t in whole.trials if t.state == "complete"]
    assert sorted(complete) == pytest.approx([1e-3, 1e-2, 1e-1])
    assert sum(t.parameters == first.trials[1].parameters for t in whole.trials) == 2


def test_hopeless_trials_are_pruned_and_diverged_ones_do_not_count_as_best() -> None:
    recipe = BASE.replace(epochs=8)
    space = {"optimizer.lr": Choice([1e-2, 3e-2, 1e-1, 1e-9, 1e-8, 1e-7])}
    found = tune(space, data(), recipe=recipe, method="grid", trials=8)
    states = {trial.parameters["optimizer.lr"]: trial.state for trial in found.trials}
    assert "pruned" in states.values()
    assert all(trial.value is None for trial in found.trials if trial.state == "pruned")
    wild = Recipe(method=MLP(hidden=(4,)), epochs=2)
    space = {"optimizer.lr": Choice([1e-3, 1e20])}
    found = tune(space, images(), recipe=wild, method="grid", prune=False)
    assert sorted(trial.state for trial in found.trials) == ["complete", "failed"]
    assert found.best.optimizer.lr == 1e-3


def test_parallel_processes_share_the_study(tmp_path: Path) -> None:
    found = tune(
        RATES,
        data(),
        recipe=BASE,
        method="random",
        trials=4,
        study=tmp_path / "study.db",
        jobs=2,
        prune=False,
    )
    complete = [trial for trial in found.trials if trial.state == "complete"]
    assert 4 <= len(complete) <= 5
    assert len({trial.parameters["optimizer.lr"] for trial in complete}) == len(complete)


def test_parallel_processes_judge_among_the_other_categories_too(tmp_path: Path) -> None:
    """What one process finds, two find: other categories reach the workers."""
    plain = data()
    near = torch.nn.functional.normalize(plain.train.first_views(), dim=1)
    among = replace(plain, others=near[:6])
    rate = {"optimizer.lr": Choice([1e-3])}
    alone = tune(rate, among, recipe=BASE, method="grid", prune=False, metric="val/loss")
    study = tmp_path / "study.db"
    shared = tune(
        rate, among, recipe=BASE, method="grid", prune=False, metric="val/loss", study=study, jobs=2
    )
    apart = tune(rate, plain, recipe=BASE, method="grid", prune=False, metric="val/loss")
    assert shared.value == pytest.approx(alone.value, rel=1e-6)
    assert alone.value > apart.value + 0.1


def test_plots_and_importances(tmp_path: Path) -> None:
    space = {**RATES, "batch_size": Choice([8, 16])}
    found = tune(space, data(), recipe=BASE, method="grid", trials=6, prune=False)
    assert sum(found.importances().values()) == pytest.approx(1.0)
    for file in (
        found.plot_importances(tmp_path / "importance.png"),
        found.plot_parallel(tmp_path / "parallel.png"),
    ):
        assert file.read_bytes().startswith(b"\x89PNG")


def test_trials_that_are_all_alike_make_no_field_important(tmp_path: Path) -> None:
    too_small = {"optimizer.lr": LogUniform(1e-9, 1e-8, points=2), "batch_size": Choice([8, 16])}
    found = tune(too_small, data(), recipe=BASE, method="grid", trials=4, prune=False)
    assert found.importances() == {"optimizer.lr": 0.5, "batch_size": 0.5}
    assert found.plot_importances(tmp_path / "importance.png").stat().st_size > 1000
    assert found.plot_parallel(tmp_path / "parallel.png").stat().st_size > 1000


def test_mistakes_are_named() -> None:
    empty = features().val.pick([])
    some = features()
    for wrong, says in (
        ({"method": "genetic"}, "grid, random, qmc, tpe"),
        ({"metric": "f1"}, "val/accuracy, val/loss"),
        ({"budget": "soon"}, "2min"),
    ):
        with pytest.raises(RecipeError, match=says):
            tune(RATES, some, recipe=BASE, **wrong)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="validation split"):
        tune(RATES, type(some)(some.train, empty, some.classes, some.zero_shot), recipe=BASE)


def test_a_dataset_there_and_back(tmp_path: Path) -> None:
    for original in (features(), images()):
        save_dataset(tmp_path / "d.safetensors", original)
        again = load_dataset(tmp_path / "d.safetensors")
        assert again.digest == original.digest
        assert again.classes == original.classes
        assert (again.zero_shot is None) == (original.zero_shot is None)


def test_a_dataset_keeps_other_categories_and_the_retention_set(tmp_path: Path) -> None:
    whole = features(classes=6)
    taught = whole.among([0, 1, 2, 3])
    kept = Retention(whole.among([4, 5]).val, ("e", "f"), whole.among([4, 5]).zero_shot)
    original = replace(taught, retention=kept, others=kept.zero_shot.text)
    original = replace(original, val=replace(original.val, names=("n",) * len(original.val)))
    save_dataset(tmp_path / "d.safetensors", original)
    again = load_dataset(tmp_path / "d.safetensors")
    assert again.digest == original.digest
    assert torch.equal(again.others, original.others)
    assert again.val.names == original.val.names
    assert again.retention is not None
    assert again.retention.classes == kept.classes
    assert again.retention.samples.digest == kept.samples.digest
    assert torch.equal(again.retention.zero_shot.text, kept.zero_shot.text)
    assert again.retention.zero_shot.logit_scale == kept.zero_shot.logit_scale
