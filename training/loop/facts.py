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

from typing import Any

import torch
from torch import Tensor, nn

from training.data.dataset import Dataset
from training.initialisation import variance_report
from training.loop.evaluate import first_logits, scores, spread_rows
from training.loop.pipeline import Pipeline
from training.modes import evaluating
from training.preprocessing import ShiftScale, swapped_against
from training.recipe import Recipe

SAMPLE = 512
_SAME = 1 - 1e-6  # cosine of two encodings of the same picture


def starting_facts(
    recipe: Recipe, data: Dataset, pipeline: Pipeline, *, device: str
) -> dict[str, Any]:
    """All facts that need no gradient. Leaves the network and the random states as they were."""
    train = data.train.pick(spread_rows(len(data.train), SAMPLE))
    val = data.val.pick(spread_rows(len(data.val), SAMPLE))
    logits = first_logits(pipeline, train.first_views(), device=device)
    classes = logits.shape[1]  # with rivals
    loss, accuracy = scores(logits, train.labels, recipe.loss)
    expected = uninformed = recipe.loss.uninformed(classes)
    if recipe.method.starts_at_zero_shot and data.zero_shot is not None:
        # of images the network itself is the only one to know its zero-shot answers
        first = train.first_views()
        words = data.zero_shot.among(data.rivals if classes > len(data.classes) else None)
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
