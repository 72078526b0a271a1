"""Planted bugs and their verdicts: `make strategy-proof`.

    python -m benchmarks.strategy_proof

Each bug is planted into an otherwise healthy run (small pictures of five classes, a small network),
and `fit` has to name it from the run's history alone. Twenty healthy runs with other seeds have to
stay without a finding.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from training import (
    MLP,
    AdamW,
    ChannelStandard,
    Cosine,
    Dataset,
    GivenModel,
    Momentum,
    Recipe,
    Samples,
    Verdict,
    fit,
)

CLASSES = ("circle", "cross", "ring", "star", "wave")
EDGE = 12
HEALTHY_SEEDS = 20


def pictures(seed: int, *, train: int = 40, val: int = 40) -> Dataset:
    """Noisy pictures with a warm tint, [N, 3, 12, 12] in [0, 1], so many of each class."""
    dice = torch.Generator().manual_seed(seed)
    coarse = torch.randn(len(CLASSES), 3, 4, 4, generator=dice)
    patterns = nn.functional.interpolate(coarse, (EDGE, EDGE), mode="bilinear")
    tint = torch.tensor([0.6, 0.5, 0.4])[:, None, None]

    def side(count: int) -> Samples:
        labels = torch.arange(len(CLASSES)).repeat_interleave(count)
        noise = torch.randn(len(labels), 3, EDGE, EDGE, generator=dice)
        images = tint + 0.1 * patterns[labels] + 0.2 * noise
        return Samples(images.clamp(0, 1), labels)

    return Dataset(train=side(train), val=side(val), classes=CLASSES)


def recipe(seed: int) -> Recipe:
    """A recipe that trains these pictures well."""
    return Recipe(
        method=MLP(hidden=(32,)),
        optimizer=AdamW(lr=3e-3, weight_decay=0.05),
        schedule=Cosine(warmup=0.1),
        preprocess=ChannelStandard(),
        epochs=12,
        batch_size=25,
        seed=seed,
    )


@dataclass(frozen=True)
class Planted:
    """A bug: its name, the verdict it must get, and a run that has it."""

    bug: str
    expected: Verdict
    run: Callable[[int], Verdict]


def verdict_of(recipe: Recipe, data: Dataset, model: nn.Module | None = None) -> Verdict:
    """Train, and read the verdict."""
    return fit(recipe, data, model=model).diagnosis.verdict


def healthy(seed: int) -> Verdict:
    """No bug."""
    return verdict_of(recipe(seed), pictures(seed))


def shuffled_labels(seed: int) -> Verdict:
    """The training labels belong to other pictures."""
    data = pictures(seed)
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))
    train = replace(data.train, labels=data.train.labels[order])
    return verdict_of(recipe(seed).replace(epochs=30), replace(data, train=train))


def blue_for_red(seed: int) -> Verdict:
    """Validation is read as BGR."""
    data = pictures(seed)
    return verdict_of(
        recipe(seed), replace(data, val=replace(data.val, inputs=data.val.inputs.flip(1)))
    )


def double_softmax(seed: int) -> Verdict:
    """The network ends in a softmax, and the loss has its own."""
    return verdict_of(
        _given(seed), pictures(seed), nn.Sequential(*_network(seed), nn.Softmax(dim=1))
    )


def frozen_head(seed: int) -> Verdict:
    """The last layer was frozen and forgotten."""
    network = _network(seed)
    network[-1].requires_grad_(False)
    return verdict_of(_given(seed), pictures(seed), network)


class Detached(nn.Module):
    """Features without their graph: only the head can learn."""

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__()
        self.body, self.head = network[:-1], network[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).detach())


def detached_graph(seed: int) -> Verdict:
    """A detach() between body and head."""
    return verdict_of(_given(seed), pictures(seed), Detached(_network(seed)))


def rate_times_1000(seed: int) -> Verdict:
    """The learning rate, a thousand times too large."""
    healthy_recipe = recipe(seed)
    lr = 1000 * healthy_recipe.optimizer.lr
    return verdict_of(
        healthy_recipe.replace(**{"optimizer.lr": lr, "optimizer.weight_decay": 0.0}),
        pictures(seed),
    )


def rate_times_1000_momentum(seed: int) -> Verdict:
    """The same with SGD and momentum."""
    return verdict_of(recipe(seed).replace(optimizer=Momentum(lr=0.02 * 1000)), pictures(seed))


def leak(seed: int) -> Verdict:
    """A fifth of validation stands in training, too."""
    data = pictures(seed)
    copies = data.val.pick(range(0, len(data.val), 5))
    train = Samples(
        torch.cat([data.train.inputs, copies.inputs]), torch.cat([data.train.labels, copies.labels])
    )
    return verdict_of(recipe(seed), replace(data, train=train))


def double_normalisation(seed: int) -> Verdict:
    """The pictures were standardised when they were loaded, and the recipe does it again."""
    data = pictures(seed)
    mean, std = (0.6, 0.5, 0.4), (0.22, 0.22, 0.22)

    def standardised(side: Samples) -> Samples:
        m, s = (torch.tensor(values)[:, None, None] for values in (mean, std))
        return replace(side, inputs=(side.inputs - m) / s)

    twice = recipe(seed).replace(preprocess=ChannelStandard(mean=mean, std=std))
    return verdict_of(
        twice, replace(data, train=standardised(data.train), val=standardised(data.val))
    )


def _network(seed: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(3 * EDGE**2, 32), nn.ReLU(), nn.Linear(32, len(CLASSES))
        )


def _given(seed: int) -> Recipe:
    return recipe(seed).replace(method=GivenModel())


PLANTED = (
    Planted("shuffled labels", Verdict.LABEL_BUG, shuffled_labels),
    Planted("BGR", Verdict.CHANNEL_ORDER, blue_for_red),
    Planted("double softmax", Verdict.DOUBLE_SOFTMAX, double_softmax),
    Planted("frozen head", Verdict.FROZEN_HEAD, frozen_head),
    Planted("detached graph", Verdict.DETACHED_GRAPH, detached_graph),
    Planted("LR x 1000 (AdamW)", Verdict.DIVERGED, rate_times_1000),
    Planted("LR x 1000 (momentum)", Verdict.DIVERGED, rate_times_1000_momentum),
    Planted("leak from validation", Verdict.LEAK, leak),
    Planted("double normalisation", Verdict.DOUBLE_NORMALISATION, double_normalisation),
)


def main() -> int:
    """Print the table; 1 if a verdict is wrong."""
    wrong = 0
    print(f"{'bug':24} {'expected verdict':22} verdict")
    for planted in PLANTED:
        verdict = planted.run(0)
        wrong += verdict is not planted.expected
        mark = "" if verdict is planted.expected else "   <-- wrong"
        print(f"{planted.bug:24} {planted.expected:22} {verdict}{mark}", flush=True)
    verdicts = [healthy(seed) for seed in range(HEALTHY_SEEDS)]
    sound = verdicts.count(Verdict.HEALTHY)
    wrong += sound != HEALTHY_SEEDS
    print(
        f"{'none (20 seeds)':24} {Verdict.HEALTHY:22} {sound} of {HEALTHY_SEEDS} {Verdict.HEALTHY}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
