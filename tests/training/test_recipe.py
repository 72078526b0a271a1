from __future__ import annotations

import dataclasses

import pytest

import training
from training import (
    GDA,
    MLP,
    Adam,
    AdamW,
    ChannelStandard,
    Constant,
    Cosine,
    CrossEntropy,
    Cutout,
    ElasticNet,
    He,
    LoRA,
    Mixup,
    Patience,
    Recipe,
    SmallCNN,
    Step,
    TextHead,
)
from training.errors import MissingExtraError, RecipeError

FULL = Recipe(
    method=TextHead(anchor="1/shots"),
    loss=CrossEntropy(label_smoothing=0.1),
    optimizer=AdamW(lr=1e-3, layer_decay=0.9),
    schedule=Cosine(warmup=0.05),
    penalty=ElasticNet(l1=0, l2=1e-4),
    augment=[Mixup(0.2), Cutout(0.25)],
    stop=Patience("val/loss", 5, restore_best=True),
    balance="weights",
    epochs=50,
    clip=1.0,
    ema=0.99,
    seed=7,
)
RECIPES = [
    Recipe(),
    FULL,
    Recipe(method=GDA(alpha=0.5)),
    Recipe(method=SmallCNN(activation="leaky_relu", slope=0.2)),
    Recipe(
        method=SmallCNN(width=16, init=He(), stochastic_depth=0.1),
        preprocess=ChannelStandard(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)),
        transfer=LoRA(rank=2),
        schedule=Step(at=(0.5,), per="epoch"),
        optimizer=Adam(betas=(0.8, 0.99)),
    ),
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_yaml_there_and_back(recipe: Recipe) -> None:
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert Recipe.from_yaml(recipe.to_yaml()).digest == recipe.digest


def test_hand_written_yaml_with_defaults() -> None:
    recipe = Recipe.from_yaml(
        "method: {TextHead: {anchor: 0.5}}\noptimizer: {AdamW: {lr: 1e-3}}\n"
        "schedule: {Constant: }\naugment: [{Mixup: {alpha: 0.4}}]\nepochs: 7\n"
    )
    assert recipe == Recipe(
        method=TextHead(anchor=0.5),
        optimizer=AdamW(lr=1e-3),
        schedule=Constant(),
        augment=[Mixup(0.4)],
        epochs=7,
    )
    assert Recipe.from_yaml("") == Recipe()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("epochs: [", "no YAML"),
        ("epoch: 3", "no field 'epoch'"),
        ("method: {TextHaed: {}}", "unknown part 'TextHaed'"),
        ("method: {TextHead: {anker: 1}}", "no field 'anker'"),
        ("method: {TextHead: 3}", "fields by name"),
        ("method: 3", "method can't be 3"),
        ("method: {Cosine: {}}", "method can't be Cosine"),
        ("augment: [{Cosine: {}}]", "augment can't hold"),
        ("optimizer: {AdamW: {lr: -1}}", "lr must be above 0"),
        ("epochs: 0", "epochs must be above 0"),
        ("balance: some", "balance must be one of"),
        ("precision: int4", "precision must be one of"),
        ("method: !!python/object/apply:os.system ['true']", "no YAML"),
    ],
)
def test_mistakes_are_named(text: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        Recipe.from_yaml(text)


def test_a_file_that_is_not_there(tmp_path) -> None:
    with pytest.raises(RecipeError, match="No such file"):
        Recipe.from_file(tmp_path / "none.yaml")
    (tmp_path / "r.yaml").write_text(FULL.to_yaml())
    assert Recipe.from_file(tmp_path / "r.yaml") == FULL


def test_it_is_frozen_and_replace_reaches_into_parts() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.epochs = 3  # type: ignore[misc]
    changed = FULL.replace(**{"optimizer.lr": 0.5, "epochs": 2})
    assert (changed.optimizer.lr, changed.epochs) == (0.5, 2)
    assert changed.optimizer == dataclasses.replace(FULL.optimizer, lr=0.5)  # type: ignore[type-var]
    assert changed.digest != FULL.digest
    with pytest.raises(RecipeError, match="no field 'lrate'"):
        FULL.replace(**{"optimizer.lrate": 1})


def test_plain_switches_every_regulariser_off() -> None:
    plain = FULL.replace(method=MLP(dropout=0.5, dropconnect=0.5)).plain()
    assert plain.method == MLP()
    assert plain.loss == CrossEntropy()
    assert plain.optimizer == AdamW(lr=1e-3, weight_decay=0.0, layer_decay=0.9)
    assert (plain.penalty, plain.augment, plain.ema, plain.stop) == (None, (), None, None)
    assert plain.clip == 1.0


def test_everything_public_that_a_recipe_can_hold_is_known_by_name() -> None:
    from training.parts import _PARTS

    dataclass_names = {
        name
        for name in training.__all__
        if dataclasses.is_dataclass(getattr(training, name)) and name in _PARTS
    }
    assert {
        "TextHead",
        "GDA",
        "SmallCNN",
        "Mixup",
        "AdamW",
        "Cosine",
        "Patience",
    } <= dataclass_names


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins
    import sys

    real = builtins.__import__

    def without_yaml(name: str, *args: object, **kwargs: object) -> object:
        if name == "yaml":
            raise ModuleNotFoundError("No module named 'yaml'", name="yaml")
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.delitem(sys.modules, "yaml", raising=False)
    monkeypatch.setitem(sys.modules, "yaml", None)
    monkeypatch.setattr(builtins, "__import__", without_yaml)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[train\]"):
        Recipe().to_yaml()
