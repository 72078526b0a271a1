"""What can be known before and around the first step: the evidence for planted and other bugs.

Everything is a plain number, word or list in `History.facts`, so that the diagnosis stays a pure
function:

    classes, train_count, val_count, majority     sizes; share of the largest class in training
    expected_loss, uninformed_loss                the first loss as it should be (zero-shot's for
                           heads that start there); that of knowing nothing
    initial_loss, initial_train_accuracy, initial_val_accuracy    before the first step, plain
    rows_sum_to_one        the network puts out probabilities, not logits
    leaked                 validation samples that training also holds
    channels_swapped       validation looks like training with red and blue swapped
    standardised_twice     a standardisation gets what has been standardised before
    signal                 the layer where the signal vanishes or explodes, in words; or None
    trainable              names of parameters that may change
    head, head_frozen      the last layer with parameters; whether none of them may change
    without_gradient       trainable parameters that the first backward pass didn't reach
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from training.data.dataset import Dataset, Samples
from training.initialisation import is_activation, variance_report
from training.loop.pipeline import Pipeline
from training.losses import Loss
from training.preprocessing import ShiftScale, swapped_against
from training.randomness import before_training, evaluating
from training.recipe import Recipe

_BATCH = 512


@torch.no_grad()
def first_logits(network: nn.Module, inputs: Tensor, *, device: str = "cpu") -> Tensor:
    """Logits [N, C] of an untrained network, in one batch: fresh BatchNorm has no averages yet."""
    with before_training(network):
        logits: Tensor = network(inputs.to(device)).float().cpu()
    return logits


@torch.no_grad()
def logits_of(network: nn.Module, inputs: Tensor, *, device: str = "cpu") -> Tensor:
    """Logits [N, C] on the CPU, computed in batches in eval mode."""
    with evaluating(network):
        parts = [network(chunk.to(device)).float().cpu() for chunk in inputs.split(_BATCH)]
    return torch.cat(parts)


def loss_and_accuracy(
    network: nn.Module, samples: Samples, loss: Loss, *, device: str = "cpu"
) -> tuple[float, float]:
    """Mean plain loss, and the share of right answers, over the samples' first views."""
    return scores(logits_of(network, samples.first_views(), device=device), samples.labels, loss)


def scores(logits: Tensor, labels: Tensor, loss: Loss) -> tuple[float, float]:
    """Mean plain loss and accuracy of logits [N, C] for labels [N]."""
    mean = float(loss.plain().per_sample(logits, labels).double().mean())
    return mean, float((logits.argmax(dim=1) == labels).double().mean())


def spread_rows(count: int, most: int) -> list[int]:
    """At most `most` of `count` rows, evenly spread: always the same, without chance."""
    if count <= most:
        return list(range(count))
    return [i * count // most for i in range(most)]


SAMPLE = 128
_FLOORS = {nn.ELU: -1.0, nn.SELU: -1.7580993408473766}


Health = dict[str, dict[str, float]]


@torch.no_grad()
def activation_health(network: nn.Module, inputs: Tensor) -> Health:
    """Layer name -> {"dead", "saturated", "mean"} for every activation module, in eval mode.

    Over samples (and positions):

        dead        share of units whose gradient is 0 for every sample: ReLU's at or below 0
        saturated   share of outputs within 2 % of the range's end: sigmoid outside (.02, .98),
                    tanh's |y| > .98, ELU and SELU within 2 % of their floor
        mean        mean output: 0 for zero-centred units, above 0 for sigmoid and ReLU
    """
    found: Health = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def measure(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            found[name] = {
                "dead": dead_share(module, given[0]),
                "saturated": saturated_share(module, output),
                "mean": float(output.double().mean()),
            }

        return measure

    handles = [
        module.register_forward_hook(hook(name))
        for name, module in network.named_modules()
        if is_activation(module)
    ]
    try:
        with evaluating(network):
            network(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def dead_share(module: nn.Module, before: Tensor) -> float:
    """Share of units (channels) that pass no gradient for any sample; 0 for kinds that can't die.

    before: what goes into the activation, [B, C] or [B, C, H, W].
    """
    if not isinstance(module, nn.ReLU):
        return 0.0
    alive = (before > 0).transpose(0, 1).flatten(1).any(dim=1)  # (C,)
    return float((~alive).double().mean())


def saturated_share(module: nn.Module, output: Tensor) -> float:
    """Share of outputs on the flat part of the curve; 0 for kinds that don't saturate."""
    if isinstance(module, nn.Sigmoid):
        flat = (output < 0.02) | (output > 0.98)
    elif isinstance(module, nn.Tanh):
        flat = output.abs() > 0.98
    elif type(module) in _FLOORS:
        flat = output < 0.98 * _FLOORS[type(module)]
    else:
        return 0.0
    return float(flat.double().mean())


def gradient_health(network: nn.Module) -> Health:
    """Layer name -> {"weight", "gradient"}: their norms, for modules with trainable parameters."""
    found: Health = {}
    for name, module in network.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.requires_grad]
        if own:
            gradients = [p.grad for p in own if p.grad is not None]
            found[name or "(all)"] = {"weight": _norm(own), "gradient": _norm(gradients)}
    return found


def _norm(tensors: list[nn.Parameter] | list[Tensor]) -> float:
    return float(sum(float(t.detach().double().square().sum()) for t in tensors) ** 0.5)


_LOOKED_AT = 512  # samples of each side
_SAME = 1 - 1e-6  # cosine of two encodings of the same picture


def starting_facts(
    recipe: Recipe, data: Dataset, pipeline: Pipeline, *, device: str
) -> dict[str, Any]:
    """All facts that need no gradient. Leaves the network and the random states as they were."""
    train = data.train.pick(spread_rows(len(data.train), _LOOKED_AT))
    val = data.val.pick(spread_rows(len(data.val), _LOOKED_AT))
    logits = first_logits(pipeline, train.first_views(), device=device)
    classes = logits.shape[1]  # with other categories
    loss, accuracy = scores(logits, train.labels, recipe.loss)
    expected = uninformed = recipe.loss.uninformed(classes)
    if recipe.method.starts_at_zero_shot and data.zero_shot is not None:
        # of images the network itself is the only one to know its zero-shot answers
        first = train.first_views()
        words = data.zero_shot.among(data.others if classes > len(data.classes) else None)
        text_logits = logits if data.has_images else words.logits(first)
        expected, _ = scores(text_logits, train.labels, recipe.loss)
    head, head_frozen = last_layer(pipeline, train.first_views()[:2].to(device))
    facts: dict[str, Any] = {
        "classes": len(data.classes),
        "train_count": len(data.train),
        "val_count": len(data.val),
        "majority": max(data.counts) / len(data.train),
        "expected_loss": expected,
        "uninformed_loss": uninformed,
        "initial_loss": loss,
        "initial_train_accuracy": accuracy,
        "initial_val_accuracy": None,
        "rows_sum_to_one": _are_probabilities(logits),
        "leaked": leaked(data),
        "channels_swapped": bool(
            data.has_images and swapped_against(data.train.inputs, data.val.inputs)
        ),
        "standardised_twice": standardised_twice(pipeline, train.first_views().to(device)),
        "signal": _signal(pipeline, train.first_views()[:128].to(device)),
        "trainable": [name for name, p in pipeline.named_parameters() if p.requires_grad],
        "head": head,
        "head_frozen": head_frozen,
        "without_gradient": [],
    }
    if len(val):
        val_logits = first_logits(pipeline, val.first_views(), device=device)
        facts["initial_val_accuracy"] = scores(val_logits, val.labels, recipe.loss)[1]
    return facts


def gradient_facts(pipeline: Pipeline) -> list[str]:
    """Trainable parameters without a gradient after the first backward pass."""
    return [n for n, p in pipeline.named_parameters() if p.requires_grad and p.grad is None]


def leaked(data: Dataset) -> int:
    """Validation samples that also stand in training: the same picture, or the same vector."""
    if not len(data.val):
        return 0
    if data.has_images or data.train.inputs.ndim == 2:
        # images by their 8 bits, which survive a float's rounding
        sides = [side.inputs for side in (data.train, data.val)]
        train, val = [(x * 255).round().byte() if data.has_images else x for x in sides]
        seen = {sample.numpy().tobytes() for sample in train}
        return sum(sample.numpy().tobytes() in seen for sample in val)
    views = data.train.all_views()[0]
    nearest = [(chunk @ views.T).amax(dim=1) for chunk in data.val.first_views().split(256)]
    return int((torch.cat(nearest) > _SAME).sum())


def _are_probabilities(logits: Tensor) -> bool:
    sums = logits.double().sum(dim=1)
    return bool((logits >= 0).all() and ((sums - 1).abs() < 1e-4).all())


def standardised_twice(pipeline: nn.Module, inputs: Tensor) -> bool:
    """Whether a ShiftScale gets inputs that are already centred and scaled.

    Evidence: its constants shrink (std at most 0.6 of 1) and shift, but what comes in has mean and
    standard deviation nearer to 0 and 1 than to the constants.
    """
    found: list[bool] = []

    def look(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(module, ShiftScale)
        x = given[0].double()
        mean, std = module.mean.double(), module.std.double()
        if not bool((std < 0.6).all()) or not bool((mean.abs() > 0.05).any()):
            return  # constants of data that was standard already: once more changes nothing
        near_zero = (x.mean() - 0).abs() < (x.mean() - mean.mean()).abs()
        near_one = x.std().log().abs() < (x.std().log() - std.mean().log()).abs()
        found.append(bool(near_zero and near_one and (x < 0).any()))

    handles = [
        module.register_forward_pre_hook(look)
        for module in pipeline.modules()
        if isinstance(module, ShiftScale)
    ]
    try:
        with torch.no_grad(), evaluating(pipeline):
            pipeline(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return any(found)


def last_layer(pipeline: nn.Module, inputs: Tensor) -> tuple[str, bool]:
    """The module with parameters that is called last, and whether they all are frozen."""
    called: list[str] = []
    names = {
        module: name
        for name, module in pipeline.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    }
    handles = [
        module.register_forward_hook(lambda module, _given, _output: called.append(names[module]))
        for module in names
    ]
    try:
        with torch.no_grad(), evaluating(pipeline):
            pipeline(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not called:
        return "", False
    last = pipeline.get_submodule(called[-1])
    return called[-1], not any(p.requires_grad for p in last.parameters(recurse=False))


def _signal(pipeline: Pipeline, inputs: Tensor) -> str | None:
    report = variance_report(pipeline, inputs)
    return None if report.first_bad is None else str(report)
