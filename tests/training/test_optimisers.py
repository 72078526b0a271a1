from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.training.samples import images
from training import MLP, SGD, Adam, AdamW, Momentum, RMSprop
from training.errors import RecipeError
from training.optimisers import Optimiser, parameter_groups


def one_weight(value: float = 1.0) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(layer.weight, value)
    return layer


def trace(settings: Optimiser, gradients: list[float]) -> list[float]:
    """The weight after each step with the given gradients."""
    layer = one_weight()
    optimizer = settings.build(layer)
    seen = []
    for gradient in gradients:
        layer.weight.grad = torch.full_like(layer.weight, gradient)
        optimizer.step()
        seen.append(float(layer.weight.detach()))
    return seen


GRADIENTS = [1.0, -2.0, 0.5, 0.25]


def test_sgd_by_hand() -> None:
    w, expected = 1.0, []
    for g in GRADIENTS:
        w -= 0.1 * (g + 0.2 * w)
        expected.append(w)
    assert trace(SGD(lr=0.1, weight_decay=0.2), GRADIENTS) == pytest.approx(expected, rel=1e-12)


def test_momentum_by_hand() -> None:
    w, v, expected = 1.0, 0.0, []
    for g in GRADIENTS:
        v = 0.9 * v + g
        w -= 0.1 * v
        expected.append(w)
    assert trace(Momentum(lr=0.1), GRADIENTS) == pytest.approx(expected, rel=1e-12)
    w, v, expected = 1.0, 0.0, []
    for g in GRADIENTS:
        v = 0.9 * v + g
        w -= 0.1 * (g + 0.9 * v)
        expected.append(w)
    nesterov = trace(Momentum(lr=0.1, nesterov=True), GRADIENTS)
    assert nesterov == pytest.approx(expected, rel=1e-12)


def test_rmsprop_by_hand() -> None:
    w, s, expected = 1.0, 0.0, []
    for g in GRADIENTS:
        s = 0.99 * s + 0.01 * g * g
        w -= 0.1 * g / (s**0.5 + 1e-8)
        expected.append(w)
    assert trace(RMSprop(lr=0.1), GRADIENTS) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_and_adamw_by_hand(decoupled: bool) -> None:
    w, m, v, expected = 1.0, 0.0, 0.0, []
    for t, raw in enumerate(GRADIENTS, start=1):
        g = raw if decoupled else raw + 0.2 * w
        if decoupled:
            w -= 0.1 * 0.2 * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w -= 0.1 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)) ** 0.5 + 1e-8)
        expected.append(w)
    kind = AdamW if decoupled else Adam
    assert trace(kind(lr=0.1, weight_decay=0.2), GRADIENTS) == pytest.approx(expected, rel=1e-9)


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.slope = nn.PReLU()
        self.logit_scale = nn.Parameter(torch.tensor(2.6))


def test_biases_norms_slopes_and_the_logit_scale_do_not_decay() -> None:
    network = Mixed()
    groups = parameter_groups(network, lr=0.1, weight_decay=0.5, layer_decay=None)
    decayed = [id(p) for g in groups if g["weight_decay"] for p in g["params"]]
    assert decayed == [id(network.linear.weight)]
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_layer_decay_slows_the_early_layers() -> None:
    network = MLP(hidden=(8, 8)).build(images())
    groups = parameter_groups(network, lr=1.0, weight_decay=0.1, layer_decay=0.5)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    first, second, head = (
        rate[id(network.get_parameter(name))]
        for name in ("blocks.0.0.weight", "blocks.1.0.weight", "head.weight")
    )
    assert (first, second, head) == (0.25, 0.5, 1.0)
    with pytest.raises(RecipeError, match="group_matcher"):
        parameter_groups(Mixed(), lr=1.0, weight_decay=0.1, layer_decay=0.5)


def test_nothing_to_train() -> None:
    with pytest.raises(RecipeError, match="frozen"):
        SGD().build(one_weight().requires_grad_(False))


@pytest.mark.parametrize("kind", [SGD, Momentum, RMSprop, Adam, AdamW])
def test_settings_are_checked_and_plain_drops_the_decay(kind: type) -> None:
    assert kind(weight_decay=0.3).plain().weight_decay == 0
    for wrong in ({"lr": 0.0}, {"weight_decay": -1.0}, {"layer_decay": 1.5}):
        with pytest.raises(RecipeError):
            kind(**wrong)
