from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from tests.training.samples import images
from training import MLP, Recipe, SmallCNN, fit
from training.errors import RecipeError
from training.initialisation import (
    He,
    SmallRandom,
    Xavier,
    Zero,
    fan_in,
    initialise,
    variance_report,
)
from training.layers import Residual, activation
from training.networks import Method

DEPTH, WIDTH = 50, 256


def deep(name: str, scheme: object, depth: int = DEPTH) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(WIDTH, WIDTH, bias=False), activation(name)]
    network = nn.Sequential(*layers)
    initialise(network, scheme)  # type: ignore[arg-type]
    return network


@pytest.mark.parametrize(("name", "scheme"), [("tanh", Xavier()), ("relu", He())])
def test_variance_is_kept_from_layer_to_layer_through_50_layers(name: str, scheme: object) -> None:
    """Proof 1: the ratio of each layer to the one before is near 1."""
    torch.manual_seed(0)
    report = variance_report(deep(name, scheme), torch.randn(256, WIDTH))
    squares = [layer.mean_square for layer in report.layers]
    ratios = [b / a for a, b in pairwise(squares)]
    assert len(squares) == DEPTH
    # 256 units scatter by sqrt(5 / 256); tanh takes a little at first, where it is large
    assert all(0.5 < ratio < 1.5 for ratio in ratios)
    assert 0.9 < math.exp(sum(map(math.log, ratios[10:])) / len(ratios[10:])) < 1.1
    assert report.first_bad is None


@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_small_random_vanishes_and_says_where(name: str) -> None:
    """Proof 1: 0.01 * randn goes to 0, by Din * std^2 (and half of it through ReLU) a layer."""
    torch.manual_seed(0)
    report = variance_report(deep(name, SmallRandom()), torch.randn(256, WIDTH))
    squares = [layer.mean_square for layer in report.layers]
    expected = WIDTH * 0.01**2 * (0.5 if name == "relu" else 1.0)
    assert squares[3] / squares[2] == pytest.approx(expected, rel=0.15)
    assert squares[-1] < 1e-30
    assert report.first_bad is not None
    assert report.first_bad.state == "vanishes"
    assert report.first_bad.layer in str(report)


def test_too_large_explodes() -> None:
    torch.manual_seed(0)
    report = variance_report(deep("relu", SmallRandom(std=0.2), depth=20), torch.randn(64, WIDTH))
    assert report.first_bad is not None
    assert report.first_bad.state == "explodes"


def test_stds_are_what_the_formulas_say() -> None:
    torch.manual_seed(0)
    weight = torch.empty(400, 600)
    for scheme, std in [
        (SmallRandom(), 0.01),
        (Xavier(), 1 / math.sqrt(600)),
        (Xavier("glorot"), math.sqrt(2 / 1000)),
        (He(), math.sqrt(2 / 600)),
    ]:
        scheme.fill(weight)
        assert float(weight.std()) == pytest.approx(std, rel=0.02)
    Zero().fill(weight)
    assert not weight.any()


def test_fan_in_of_a_convolution_counts_the_kernel() -> None:
    assert fan_in(nn.Conv2d(8, 16, 3).weight) == 72
    assert fan_in(nn.Linear(5, 7).weight) == 5


def test_a_residual_block_with_zero_start_is_the_identity_to_the_bit() -> None:
    """Proof 1."""
    torch.manual_seed(0)
    block = Residual(
        nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)), drop=0.5, zero_start=True
    )
    x = torch.randn(16, 8)
    assert torch.equal(block(x), x)
    assert torch.equal(block.eval()(x), x)
    normed = Residual(
        nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)), zero_start=True
    )
    image = torch.randn(2, 3, 8, 8)
    assert torch.equal(normed(image), image)


def test_a_block_that_starts_at_zero_is_no_vanishing_signal() -> None:
    torch.manual_seed(0)
    block = Residual(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), zero_start=True)
    network = nn.Sequential(nn.Linear(8, 8), block, nn.Linear(8, 8), nn.Linear(8, 3))
    assert variance_report(network, torch.randn(32, 8)).first_bad is None
    head = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3))
    nn.init.zeros_(head[1].weight)
    assert variance_report(head, torch.randn(32, 8)).first_bad is None


def test_the_diagnosis_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).eval()
    network[3].train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    variance_report(network, torch.randn(8, 4))
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    assert [module.training for module in network] == [False, False, False, True]
    assert not any(module._forward_hooks for module in network.modules())


def test_unknown_form() -> None:
    with pytest.raises(RecipeError, match="notes, glorot"):
        Xavier("nobody")


@pytest.mark.parametrize("method", [SmallCNN(width=4, init=He()), MLP(hidden=(8,), init=Xavier())])
def test_a_scheme_is_for_hidden_layers_and_the_head_starts_at_log_c(method: Method) -> None:
    torch.manual_seed(0)
    run = fit(Recipe(method=method, epochs=1), images())
    assert run.history.facts["initial_loss"] == pytest.approx(math.log(3), rel=1e-5)
    assert run.history.facts["signal"] is None
