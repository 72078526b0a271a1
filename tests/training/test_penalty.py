from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from training import SGD, AdamW, ElasticNet
from training.errors import RecipeError
from training.optimisers import Adam, decays


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.PReLU(), nn.Linear(4, 3)).double()


@pytest.mark.parametrize(("l1", "l2"), [(0.3, 0.0), (0.0, 0.7), (0.3, 0.7)])
def test_gradients_against_autograd_and_the_formula(l1: float, l2: float) -> None:
    """Proof 3, in float64: l1 sign(w) + l2 w on weights, nothing on biases, norms and slopes."""
    net = network()
    penalty = ElasticNet(l1=l1, l2=l2)
    penalty(net).backward()
    for name, parameter in net.named_parameters():
        if decays(name, parameter):
            expected = l1 * parameter.detach().sign() + l2 * parameter.detach()
            assert torch.allclose(parameter.grad, expected, rtol=0, atol=1e-15)
        else:
            assert parameter.grad is None
    weight = net[0].weight.detach().clone().requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda w: l1 * w.abs().sum() + l2 / 2 * w.square().sum(), (weight,)
    )
    expected_value = sum(
        l1 * float(p.detach().abs().sum()) + l2 / 2 * float(p.detach().square().sum())
        for n, p in net.named_parameters()
        if decays(n, p)
    )
    assert float(penalty(net).detach()) == pytest.approx(expected_value, rel=1e-12)


def steps(net: nn.Module, optimizer: torch.optim.Optimizer, penalty: ElasticNet | None) -> None:
    dice = torch.Generator().manual_seed(1)
    for _ in range(5):
        x = torch.randn(8, 5, generator=dice, dtype=torch.float64)
        loss = net(x).square().mean()
        if penalty is not None:
            loss = loss + penalty(net)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def largest_difference(a: nn.Module, b: nn.Module) -> float:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return max(float((p - q).detach().abs().max()) for p, q in pairs)


def test_decay_of_sgd_equals_the_l2_penalty() -> None:
    """Proof 3."""
    by_decay, by_penalty = network(), network()
    steps(by_decay, SGD(lr=0.1, weight_decay=0.3).build(by_decay), None)
    steps(by_penalty, SGD(lr=0.1).build(by_penalty), ElasticNet(l2=0.3))
    assert largest_difference(by_decay, by_penalty) < 1e-14


def test_decay_of_adam_equals_the_l2_penalty_but_adamw_does_not() -> None:
    """Proof 3."""
    adam, penalised, adamw = network(), network(), network()
    steps(adam, Adam(lr=0.1, weight_decay=0.3).build(adam), None)
    steps(penalised, Adam(lr=0.1).build(penalised), ElasticNet(l2=0.3))
    steps(adamw, AdamW(lr=0.1, weight_decay=0.3).build(adamw), None)
    assert largest_difference(adam, penalised) < 1e-8
    assert largest_difference(adamw, penalised) > 1e-2


def test_frozen_weights_are_left_out() -> None:
    net = network()
    whole = float(ElasticNet(l2=1.0)(net).detach())
    net[0].requires_grad_(False)
    assert 0 < float(ElasticNet(l2=1.0)(net).detach()) < whole
    frozen = copy.deepcopy(net).requires_grad_(False)
    assert float(ElasticNet(l2=1.0)(frozen)) == 0


def test_negative_weights_are_refused() -> None:
    with pytest.raises(RecipeError, match="l1"):
        ElasticNet(l1=-1)
