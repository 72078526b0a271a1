"""Does the toolkit help? Checklist, search and fit on a small CIFAR-10: `make strategy-cifar`.

    python -m benchmarks.strategy_cifar --data ../shared/data [--ablation docs/strategy/ablation.md]

Twice: a head on the embedded model's features, and a small CNN from scratch. The tuned recipe
stands against the same model with default settings (Adam, 1e-3, no regularisation), over 3 seeds,
on validation. --ablation adds one technique at a time to the CNN's default and writes the table.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from models import load_encoder
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
    Dataset,
    ElasticNet,
    Flip,
    He,
    ImageFolder,
    LinearProbe,
    LogUniform,
    Mixup,
    Patience,
    Recipe,
    Shift,
    SmallCNN,
    TextHead,
    checklist,
    encode,
    fit,
    pixels,
    tune,
)
from training.search import Space

SEEDS = (0, 1, 2)
TEMPLATES = ("a photo of a {}", "a picture of a {}", "{}")
CNN_EPOCHS = 12

# What someone gets who changes nothing: Adam, 1e-3, a constant rate, no regularisation.
CNN_DEFAULT = Recipe(
    method=SmallCNN(width=8, norm="none"),
    optimizer=Adam(lr=1e-3),
    schedule=Constant(),
    epochs=CNN_EPOCHS,
)
CNN_BASE = CNN_DEFAULT.replace(
    method=SmallCNN(width=8, norm="batch", init=He()),
    optimizer=AdamW(lr=3e-3),
    schedule=Cosine(warmup=0.05),
    preprocess=ChannelStandard(),
    augment=[Flip(), Shift(3)],
)
CNN_SPACE: Space = {
    "optimizer.lr": LogUniform(1e-3, 2e-2),
    "augment": Choice([[Flip(), Shift(3)], [Flip(), Shift(3), Mixup(0.2)]]),
    "loss": Choice([CrossEntropy(), CrossEntropy(label_smoothing=0.1)]),
}
HEAD_DEFAULT = Recipe(
    method=LinearProbe(start="zero"), optimizer=Adam(lr=1e-3), schedule=Constant(), epochs=30
)
HEAD_BASE = HEAD_DEFAULT.replace(
    method=TextHead(anchor=0.0), optimizer=AdamW(lr=1e-2), schedule=Cosine(warmup=0.05)
)
HEAD_SPACE: Space = {
    "optimizer.lr": LogUniform(1e-3, 1e-1),
    "optimizer.weight_decay": LogUniform(1e-4, 1e-1),
    "augment": Choice([[], [Mixup(0.2)]]),
    "method": Choice([TextHead(anchor=0.0), LinearProbe()]),
}
ABLATION = (
    ("default", {}),
    ("+ channel mean and std", {"preprocess": ChannelStandard()}),
    ("+ He initialisation", {"method.init": He()}),
    ("+ BatchNorm", {"method.norm": "batch"}),
    ("+ cosine with warmup", {"schedule": Cosine(warmup=0.05)}),
    ("+ AdamW, decay 0.05", {"optimizer": AdamW(lr=1e-3, weight_decay=0.05)}),
    ("+ L2 1e-4", {"penalty": ElasticNet(l2=1e-4)}),
    ("+ dropout 0.3", {"method.dropout": 0.3}),
    ("+ stochastic depth 0.2", {"method.stochastic_depth": 0.2}),
    ("+ label smoothing 0.1", {"loss": CrossEntropy(label_smoothing=0.1)}),
    ("+ flip and shift", {"augment": [Flip(), Shift(3)]}),
    ("+ cutout", {"augment": [Cutout(0.4)]}),
    ("+ mixup", {"augment": [Mixup(0.2)]}),
    ("+ cutmix", {"augment": [CutMix()]}),
    ("+ early stopping", {"stop": Patience("val/loss", 5)}),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both comparisons; 1 if a tuned recipe doesn't win."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar10/")
    parser.add_argument("--ablation", type=Path, help="write the table of techniques here")
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--budget", default="1min", help="of each checklist")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = unpack(options.data / "cifar10", Path(temporary))
        images = pixels(folder, size=32)
        if options.ablation is not None:
            write_ablation(options.ablation, images)
            return 0
        encoder = load_encoder("pictogram")
        features = encode(encoder, folder, views=2, templates=TEMPLATES, cache=None)
    assert features.zero_shot is not None
    zero = features.zero_shot.logits(features.val.first_views()).argmax(dim=1)
    share = float((zero == features.val.labels).double().mean())
    print(f"zero-shot, embedded model: {share:.1%} of {len(features.val)}\n", flush=True)
    wins = [
        compare("head on features", features, HEAD_DEFAULT, HEAD_BASE, HEAD_SPACE, options),
        compare("small CNN", images, CNN_DEFAULT, CNN_BASE, CNN_SPACE, options),
    ]
    return 0 if all(wins) else 1


def compare(
    name: str,
    data: Dataset,
    default: Recipe,
    base: Recipe,
    space: Space,
    options: argparse.Namespace,
) -> bool:
    """Checklist, search and fit; default against tuned over the seeds."""
    print(f"== {name}: {len(data.train)} training, {len(data.val)} validation images", flush=True)
    print(checklist(base, data, budget=options.budget), flush=True)
    found = tune(space, data, recipe=base, method="tpe", trials=options.trials)
    states = [trial.state for trial in found.trials]
    print(f"search: {len(states)} trials, {states.count('pruned')} pruned; best {found.value:.1%}")
    scores = {
        label: [accuracy(recipe.replace(seed=seed), data) for seed in SEEDS]
        for label, recipe in (("default", default), ("tuned", found.best))
    }
    for label, values in scores.items():
        print(f"{label:8} {summary(values)}", flush=True)
    better = statistics.fmean(scores["tuned"]) > statistics.fmean(scores["default"])
    print(f"tuned {'beats' if better else 'does NOT beat'} default\n", flush=True)
    return better


def write_ablation(path: Path, data: Dataset) -> None:
    """One technique at a time on top of the CNN's default, as a table in Markdown."""
    rows = []
    reference = 0.0
    for label, changes in ABLATION:
        values = [accuracy(CNN_DEFAULT.replace(**changes, seed=seed), data) for seed in SEEDS]
        mean = statistics.fmean(values)
        reference = reference or mean
        rows.append(f"| {label} | {summary(values)} | {100 * (mean - reference):+.1f} |")
        print(rows[-1], flush=True)
    table = "\n".join(
        [
            "# What each technique adds",
            "",
            f"A small CNN (width 8) from scratch on {len(data.train)} CIFAR-10 images, "
            f"{CNN_EPOCHS} epochs, validated on {len(data.val)}; mean and standard deviation over "
            f"{len(SEEDS)} seeds. One technique at a time on top of the default (Adam, 1e-3, "
            "constant "
            "rate, no regularisation).",
            "",
            "Made by `python -m benchmarks.strategy_cifar --data DATA --ablation THIS_FILE`.",
            "",
            "| | validation accuracy | points against default |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(table, encoding="utf-8")


def accuracy(recipe: Recipe, data: Dataset) -> float:
    """Validation accuracy of one run."""
    return fit(recipe, data).metrics["val/accuracy"]


def summary(values: Sequence[float]) -> str:
    """Mean and spread over seeds."""
    return f"{statistics.fmean(values):.1%} +- {statistics.stdev(values):.1%}"


def unpack(source: Path, target: Path) -> ImageFolder:
    """train.zip and val.zip as one checked folder with its own validation side."""
    for name in ("train", "val"):
        with zipfile.ZipFile(source / f"{name}.zip") as archive:
            archive.extractall(target / name)
    return ImageFolder(target / "train", val=target / "val")


if __name__ == "__main__":
    sys.exit(main())
