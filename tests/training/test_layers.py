from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from training.errors import RecipeError
from training.layers import (
    ACTIVATIONS,
    DropConnect,
    FractionalMaxPool,
    Maxout,
    Residual,
    activation,
    norm1d,
    norm2d,
)

DRAWS = 4000


def within_four_sigma(draws: Tensor, expected: Tensor) -> bool:
    """Whether the mean over the first axis is within 4 standard errors of what is expected."""
    error = draws.std(dim=0) / math.sqrt(len(draws))
    return bool(((draws.mean(dim=0) - expected).abs() <= 4 * error + 1e-6).all())


X = torch.tensor([-3.0, -1.0, -0.1, 0.0, 0.1, 1.0, 3.0], dtype=torch.float64)
FORMULAS = {
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "relu": lambda x: max(0.0, x),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "prelu": lambda x: x if x > 0 else 0.25 * x,
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "selu": lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * math.expm1(x)),
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "quick_gelu": lambda x: x / (1 + math.exp(-1.702 * x)),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_activations_follow_their_formulas(name: str) -> None:
    found = activation(name).double()(X)
    assert found.tolist() == pytest.approx([FORMULAS[name](x) for x in X.tolist()], abs=1e-12)


def test_the_table_is_complete() -> None:
    assert set(ACTIVATIONS) == {*FORMULAS, "maxout", "softmax"}
    assert float(activation("leaky_relu", slope=0.2)(torch.tensor(-1.0))) == pytest.approx(-0.2)
    assert activation("softmax")(X).sum() == pytest.approx(1.0)
    with pytest.raises(RecipeError, match="known: sigmoid"):
        activation("swoosh")
    with pytest.raises(RecipeError, match="width"):
        activation("maxout")


@pytest.mark.parametrize("name", FORMULAS)
def test_what_the_table_says_is_so(name: str) -> None:
    facts, module = ACTIVATIONS[name], activation(name).double()
    far = torch.tensor([-40.0, 40.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(module(far).sum(), far)
    assert facts.saturates == (name != "relu" and bool((gradient.abs() < 1e-6).any()))
    spread = module(torch.linspace(-3, 3, 301, dtype=torch.float64)).detach()
    # both signs, and not only a dip below zero
    assert facts.zero_centred == bool(spread.min() < -0.02 and name not in ("gelu", "quick_gelu"))


def test_selu_has_the_branches_the_right_way_round() -> None:
    """A fixed point of mean 0 and variance 1: the swapped form has none."""
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = activation("selu")(x)
    assert abs(float(y.mean())) < 0.01
    assert float(y.var()) == pytest.approx(1.0, abs=0.02)


def test_maxout_is_the_largest_piece_and_can_be_relu() -> None:
    layer = Maxout(3, 2, pieces=4)
    x = torch.randn(5, 3)
    pieces = (x @ layer.linear.weight.T + layer.linear.bias).view(5, 2, 4)
    assert torch.equal(layer(x), pieces.amax(dim=2))
    relu = Maxout(3, 3)
    with torch.no_grad():
        relu.linear.bias.zero_()
        relu.linear.weight.zero_()
        relu.linear.weight[::2] = torch.eye(3)
    assert torch.equal(relu(x), x.relu())
    with pytest.raises(RecipeError, match="2 pieces"):
        Maxout(3, 3, pieces=1)


class TestDropConnect:
    def test_mean_of_training_is_the_served_output(self) -> None:
        """Proof 4."""
        torch.manual_seed(0)
        layer, x = DropConnect(6, 3, p=0.4), torch.randn(1, 6)
        draws = torch.stack([layer(x)[0] for _ in range(DRAWS)]).detach()
        assert within_four_sigma(draws, layer.eval()(x)[0].detach())

    def test_extremes_and_eval(self) -> None:
        torch.manual_seed(0)
        x = torch.randn(4, 6)
        plain = DropConnect(6, 3, p=0.0)
        assert torch.equal(plain(x), nn.functional.linear(x, plain.weight, plain.bias))
        nothing = DropConnect(6, 3, p=1.0)
        assert torch.equal(nothing(x), nothing.bias.expand(4, 3))
        nothing(x).sum().backward()
        assert nothing.weight.grad is not None
        assert not nothing.weight.grad.any()
        nothing.eval()
        assert torch.equal(nothing(x), nn.functional.linear(x, nothing.weight, nothing.bias))

    def test_each_sample_has_its_own_mask(self) -> None:
        torch.manual_seed(0)
        layer = DropConnect(32, 32)
        same = layer(torch.ones(2, 32))
        assert not torch.equal(same[0], same[1])


class TestStochasticDepth:
    def test_mean_of_training_is_the_served_output(self) -> None:
        """Proof 4."""
        torch.manual_seed(0)
        block = Residual(nn.Linear(4, 4), drop=0.3)
        x = torch.randn(1, 4)
        draws = block(x.expand(DRAWS, 4)).detach()
        assert within_four_sigma(draws, block.eval()(x)[0].detach())

    def test_extremes_and_eval(self) -> None:
        branch, x = nn.Linear(4, 4), torch.randn(3, 4)
        assert torch.equal(Residual(branch)(x), x + branch(x))
        assert torch.equal(Residual(branch, drop=1.0)(x), x)
        assert torch.equal(Residual(branch, drop=1.0).eval()(x), x + branch(x))


class TestDropout:
    def test_inverted_mean_extremes_and_eval(self) -> None:
        """Proof 4: torch's own, as the networks and heads use it."""
        torch.manual_seed(0)
        layer, x = nn.Dropout(0.3), torch.randn(1, 5)
        assert within_four_sigma(torch.stack([layer(x)[0] for _ in range(DRAWS)]), x[0])
        assert torch.equal(layer.eval()(x), x)
        assert torch.equal(nn.Dropout(0.0)(x), x)
        assert not nn.Dropout(1.0)(x).any()


class TestFractionalMaxPool:
    def test_shape_range_and_determinism_in_eval(self) -> None:
        torch.manual_seed(0)
        pool, x = FractionalMaxPool(kernel=2, ratio=0.7), torch.randn(2, 3, 20, 10)
        first, second = pool(x), pool(x)
        assert first.shape == (2, 3, 14, 7)
        assert not torch.equal(first, second)
        pool.eval()
        state = torch.get_rng_state()
        assert torch.equal(pool(x), pool(x))
        assert torch.equal(state, torch.get_rng_state())
        assert torch.isin(pool(x), x).all()

    def test_ratio_is_checked(self) -> None:
        with pytest.raises(RecipeError, match="ratio"):
            FractionalMaxPool(ratio=1.0)


class TestNorms:
    def test_batch_norm_uses_the_batch_in_training_and_averages_in_serving(self) -> None:
        torch.manual_seed(0)
        norm, x = norm1d("batch", 4).double(), 3 + 2 * torch.randn(64, 4, dtype=torch.float64)
        y = norm(x)
        biased = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
        assert torch.allclose(y, biased)
        assert torch.allclose(norm.running_mean, 0.1 * x.mean(0))
        assert torch.allclose(norm.running_var, 0.9 + 0.1 * x.var(0))
        norm.eval()
        alone = norm(x[:1])
        assert torch.allclose(alone, norm(x)[:1])  # one image's answer doesn't hang on its batch
        assert torch.allclose(alone, (x[:1] - norm.running_mean) / (norm.running_var + 1e-5).sqrt())

    @pytest.mark.parametrize("name", ["layer", "group"])
    def test_layer_and_group_norm_are_the_same_in_training_and_serving(self, name: str) -> None:
        norm, x = norm2d(name, 8, groups=4), torch.randn(5, 8, 6, 6)
        trained = norm(x)
        assert torch.equal(trained, norm.eval()(x))
        assert torch.allclose(trained[:1], norm(x[:1]), atol=1e-6)
        flat = trained.reshape(5, 1 if name == "layer" else 4, -1)
        assert torch.allclose(flat.mean(-1), torch.zeros(()), atol=1e-5)
        assert torch.allclose(flat.var(-1, correction=0), torch.ones(()), atol=1e-3)

    def test_names(self) -> None:
        assert isinstance(norm2d("none", 4), nn.Identity)
        assert isinstance(norm2d("batch", 4), nn.BatchNorm2d)
        assert isinstance(norm1d("layer", 4), nn.LayerNorm)
        for broken in (
            lambda: norm2d("x", 4),
            lambda: norm1d("group", 4),
            lambda: norm2d("group", 6),
        ):
            with pytest.raises(RecipeError):
                broken()
