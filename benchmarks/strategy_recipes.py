"""What `benchmarks.strategy_cifar` compares: defaults, where the search starts, and techniques."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from training import (
    Adam,
    AdamW,
    ChannelStandard,
    Choice,
    Constant,
    Cosine,
    CrossEntropy,
    CutMix,
    Cutout,
    ElasticNet,
    Flip,
    He,
    LinearProbe,
    LogUniform,
    MeanImage,
    Mixup,
    Patience,
    Recipe,
    Shift,
    SmallCNN,
)
from training.search import Space


@dataclass(frozen=True)
class Row:
    """One technique: its name, what it changes in the default, whether it brings more views."""

    label: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    views: bool = False


@dataclass(frozen=True)
class Contest:
    """One model: its default, the recipe that the checklist looks at, the search around it.

    title: for people; name: for files; space: from the checklist's suggestion to a search space;
    note: what a reader has to know of the sizes
    """

    name: str
    title: str
    default: Recipe
    base: Recipe
    space: Callable[[Recipe], Space]
    trials: int
    budget: str
    rows: tuple[Row, ...]
    note: str


def around(lr: float) -> LogUniform:
    """Rates from a third to three times of one."""
    return LogUniform(lr / 3, lr * 3)


# What someone gets who changes nothing: Adam, 1e-3, a constant rate, no regularisation.
HEAD_DEFAULT = Recipe(
    method=LinearProbe(start="zero"), optimizer=Adam(lr=1e-3), schedule=Constant(), epochs=30
)
HEAD = Contest(
    name="head",
    title="A linear head on the embedded model's features",
    default=HEAD_DEFAULT,
    base=HEAD_DEFAULT.replace(
        optimizer=AdamW(lr=1e-3, weight_decay=1e-2), schedule=Cosine(warmup=0.05)
    ),
    space=lambda recipe: {
        "optimizer.lr": around(recipe.optimizer.lr),
        "optimizer.weight_decay": LogUniform(1e-3, 1.0),
        "method": Choice(
            [
                LinearProbe(start=start, dropout=dropout)
                for start in ("zero", "text")
                for dropout in (0.0, 0.2, 0.4)
            ]
        ),
        "augment": Choice([[], [Mixup(0.2)], [Mixup(1.0)]]),
        "loss": Choice([CrossEntropy(), CrossEntropy(label_smoothing=0.1)]),
    },
    trials=24,
    budget="2min",
    rows=(
        Row("default"),
        Row("4 views of each image (crops and flips)", views=True),
        Row("start from the text vectors", {"method": LinearProbe(start="text")}),
        Row("learning rate 1e-2", {"optimizer.lr": 1e-2}),
        Row("warmup over 10 %", {"schedule": Constant(warmup=0.1)}),
        Row("cosine schedule", {"schedule": Cosine()}),
        Row("AdamW, decay 0.1", {"optimizer": AdamW(lr=1e-3, weight_decay=0.1)}),
        Row("L2 1e-2 in the loss", {"penalty": ElasticNet(l2=1e-2)}),
        Row("L1 1e-4 in the loss", {"penalty": ElasticNet(l1=1e-4)}),
        Row("dropout 0.3", {"method": LinearProbe(start="zero", dropout=0.3)}),
        Row("label smoothing 0.1", {"loss": CrossEntropy(label_smoothing=0.1)}),
        Row("cutout of a quarter of the coordinates", {"augment": [Cutout(0.25)]}),
        Row("mixup 0.2", {"augment": [Mixup(0.2)]}),
        Row("early stopping, patience 5", {"stop": Patience("val/loss", 5)}),
        Row("running average of the weights", {"ema": 0.99}),
    ),
    note="256 features an image; every row is a run of a second.",
)

CNN_DEFAULT = Recipe(
    method=SmallCNN(width=8, norm="none"),
    optimizer=Adam(lr=1e-3),
    schedule=Constant(),
    epochs=16,
    batch_size=32,
)
CNN = Contest(
    name="cnn",
    title="A small CNN from scratch",
    default=CNN_DEFAULT,
    base=CNN_DEFAULT.replace(
        method=SmallCNN(width=8, norm="batch", init=He()),
        optimizer=AdamW(lr=3e-3, weight_decay=1e-2),
        schedule=Cosine(warmup=0.05),
        preprocess=ChannelStandard(),
        augment=[Flip(), Shift(2)],
    ),
    space=lambda recipe: {
        "optimizer.lr": around(recipe.optimizer.lr),
        "augment": Choice([[Flip()], [Flip(), Shift(2)], [Flip(), Shift(2), Mixup(0.2)]]),
        "loss": Choice([CrossEntropy(), CrossEntropy(label_smoothing=0.1)]),
    },
    trials=8,
    budget="3min",
    rows=(
        Row("default"),
        Row("learning rate 3e-3", {"optimizer.lr": 3e-3}),
        Row("mean image taken off", {"preprocess": MeanImage()}),
        Row("channel mean and std", {"preprocess": ChannelStandard()}),
        Row("He initialisation, head at zero", {"method.init": He()}),
        Row("BatchNorm", {"method.norm": "batch"}),
        Row("residual blocks start at zero", {"method.zero_start": True}),
        Row("warmup over 10 %", {"schedule": Constant(warmup=0.1)}),
        Row("cosine schedule", {"schedule": Cosine()}),
        Row("AdamW, decay 0.1", {"optimizer": AdamW(lr=1e-3, weight_decay=0.1)}),
        Row("L2 1e-3 in the loss", {"penalty": ElasticNet(l2=1e-3)}),
        Row("dropout 0.2", {"method.dropout": 0.2}),
        Row("stochastic depth 0.2", {"method.stochastic_depth": 0.2}),
        Row("label smoothing 0.1", {"loss": CrossEntropy(label_smoothing=0.1)}),
        Row("flip and shift", {"augment": [Flip(), Shift(2)]}),
        Row("cutout, a third of the edge", {"augment": [Cutout(0.33)]}),
        Row("mixup 0.2", {"augment": [Mixup(0.2)]}),
        Row("cutmix", {"augment": [CutMix()]}),
        Row("early stopping, patience 3", {"stop": Patience("val/loss", 3)}),
        Row("running average of the weights", {"ema": 0.99}),
    ),
    note="Cut so that all of it ends within about half an hour on one core: 8, 16 and 32 channels, "
    "images shrunk from 32 to 24 pixels, 16 epochs (800 steps), 8 trials, no combinations of "
    "techniques but the tuned recipe.",
)
