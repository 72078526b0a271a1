from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.samples import FakeEncoder, features, write_folder
from training import GDA, Recipe, TextHead, fit
from training.adapters.store import AdapterStore
from training.errors import DataError, RecipeError
from training.finetune import (
    HEAD_RECIPE,
    METHODS,
    Sources,
    finetune_folder,
    head_recipe,
    tune_folder,
)
from training.heads.blend import Member
from training.judging.choice import choose_method, choose_strength

QUICK = HEAD_RECIPE.replace(epochs=3)


def test_a_head_that_can_not_beat_the_words_stays_with_them() -> None:
    """Labels by chance: nothing can be learnt, so the strongest anchor at the lowest rate is best,
    or GDA with next to no weight.
    """
    data = features(shots=12, text_noise=0.1)
    dice = torch.Generator().manual_seed(0)
    shuffled = data.train.labels[torch.randperm(len(data.train), generator=dice)]
    noise = replace(data, train=replace(data.train, labels=shuffled))
    chosen, why = choose_strength(noise, HEAD_RECIPE.replace(method=TextHead()))
    assert "by cross-validation" in why
    x, zero_shot = data.val.first_views(), data.zero_shot
    assert zero_shot is not None
    zero = (zero_shot.logits(x).argmax(1) == data.val.labels).float().mean()
    tuned = fit(chosen, noise)
    free = fit(HEAD_RECIPE.replace(method=TextHead(anchor=0.0), **{"optimizer.lr": 1e-2}), noise)
    kept, lost = ((run.predict(x) == data.val.labels).float().mean() for run in (tuned, free))
    assert kept >= zero - 0.1
    assert kept > lost


def test_with_few_images_the_rate_is_low() -> None:
    chosen, why = choose_strength(features(shots=3), HEAD_RECIPE.replace(method=TextHead()))
    assert (chosen.optimizer.lr, chosen.method) == (2e-3, TextHead(anchor=3.0))
    assert "few images" in why
    closed = HEAD_RECIPE.replace(method=GDA())
    assert choose_strength(features(shots=3), closed) == (closed, "")


def test_near_duplicates_are_no_further_images() -> None:
    data = features(shots=5)
    one = replace(data, train=replace(data.train, groups=data.train.labels.clone()))
    assert (one.shots, one.distinct_shots, data.distinct_shots) == (5, 1, 5)
    assert head_recipe(one, "auto", None, seed=0)[0].method.members == (  # nothing to hold out
        Member("class-means", weight=0.5),
    )
    for method in METHODS:  # nothing can be held out, and nothing asks for it
        recipe, _ = choose_strength(one, QUICK.replace(method=METHODS[method]))
        assert fit(recipe, one).metrics["val/accuracy"] > 0.25


def test_auto_takes_the_hardware_into_account() -> None:
    many = features(shots=16)
    named = replace(many, train=replace(many.train, names=("x.png",) * len(many.train)))
    blind = replace(named, val=named.val.pick([]))
    assert choose_method(blind, accelerator=True) == ("auto", "")  # nothing to judge weights by
    assert choose_method(named, accelerator=True)[0] == "lora"
    assert "16 images" in choose_method(named, accelerator=True)[1]
    assert choose_method(named, accelerator=False) == ("auto", "")
    assert choose_method(many, accelerator=True) == ("auto", "")  # no files to read again


def test_methods_by_name() -> None:
    data = features(shots=2)
    recipe, why = head_recipe(data, "gda", None, seed=3)
    assert (recipe.seed, [member.kind for member in recipe.method.members]) == (3, ["gda"])
    assert "out of fold" in why
    probe = METHODS["logistic-probe"]
    asked = head_recipe(data, "logistic-probe", None, seed=3)[0]
    assert asked == HEAD_RECIPE.replace(method=probe, seed=3)
    assert head_recipe(data, "head", QUICK, seed=3)[0] == QUICK
    assert not head_recipe(data, "auto", None, seed=0)[0].method.trained
    tuned = QUICK.replace(method=GDA())
    assert head_recipe(data, "auto", tuned, seed=0) == (tuned, "as the recipe says")
    with pytest.raises(RecipeError, match="head, gda, tip-adapter"):
        head_recipe(data, "magic", None, seed=0)


def test_from_a_folder_to_a_report_and_an_adapter(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "shots", {"cat": 10, "dog": 10, "cow": 10})
    (root / "cat" / "notes.txt").write_text("no image")
    encoder = FakeEncoder()
    with pytest.raises(DataError, match="--skip-bad"):
        Sources(root, cache=None).read(encoder)
    sources = Sources(root, views=2, skip_bad=True, cache=tmp_path / "cache")
    data = sources.read(encoder)
    assert [path.name for path, _ in sources.skipped] == ["notes.txt"]
    store = AdapterStore(tmp_path / "adapters")
    done = finetune_folder(
        encoder,
        data,
        store=store,
        name="pets",
        recipe=QUICK,
        budget=20,
        report=tmp_path / "report.html",
    )
    assert (done.version, store.current("pets")) == (1, None)
    assert done.checklist is not None
    assert "Adapter pets" in done.report.read_text(encoding="utf-8")
    assert (done.metrics["measured"], done.metrics["tuned"]["n"]) == ("out of fold", 30)
    adapter = store.load("pets", 1, fingerprint=encoder.fingerprint)
    assert adapter.manifest.base_model == "fake"
    assert adapter.manifest.classes == ("cat", "cow", "dog")


def test_killed_after_publishing_it_publishes_no_second_version(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "shots", {"cat": 6, "dog": 6})
    encoder, store = FakeEncoder(), AdapterStore(tmp_path / "adapters")
    data = Sources(root, views=1, cache=None).read(encoder)

    def again(run_dir: Path | None) -> int:
        report = tmp_path / "report.html"
        done = finetune_folder(
            encoder, data, store=store, name="pets", recipe=QUICK, report=report, run_dir=run_dir
        )
        return done.version

    assert again(tmp_path / "run") == 1
    assert again(tmp_path / "run") == 1
    assert again(tmp_path / "other") == 2
    assert again(None) == 3
    assert again(tmp_path / "run") == 1
    store.delete("pets")
    assert again(tmp_path / "run") == 1
    assert store.versions("pets") == (1,)


def test_tuning_ends_in_a_recipe_that_finetuning_takes() -> None:
    data = features(shots=4)
    found = tune_folder(data, method="random", trials=2)
    assert Recipe.from_yaml(found.best.to_yaml()) == found.best
    assert len(found.trials) == 2
    assert "flatter" in head_recipe(data, "head", found.best, seed=0)[1]
    others = replace(data, val=data.val.pick(range(len(data.val) - 1)))
    assert head_recipe(others, "head", found.best, seed=0)[1] == "as the recipe says"
