"""The activations of the syllabus, each with its formula, what it is known for, and its source.

All of them are torch's or timm's, but Maxout (`maxout.py`). What the last column of the lecture's
table claims (saturates, centred on zero, dies) is no opinion here: `training.loop.health` measures
it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from training.errors import RecipeError
from training.extras import with_torchvision
from training.layers.maxout import Maxout


@dataclass(frozen=True)
class ActivationFacts:
    """formula: of one unit; saturates: the gradient vanishes for large |x| on at least one side;
    zero_centred: outputs take both signs around 0; can_die: a unit can end with gradient 0
    everywhere.
    """

    formula: str
    saturates: bool
    zero_centred: bool
    can_die: bool
    source: str


ACTIVATIONS: dict[str, ActivationFacts] = {
    "sigmoid": ActivationFacts("1 / (1 + exp(-x))", True, False, False, "lecture, activations"),
    "tanh": ActivationFacts("tanh(x)", True, True, False, "LeCun et al. 1998, Efficient BackProp"),
    "relu": ActivationFacts("max(0, x)", False, False, True, "Nair & Hinton 2010"),
    "leaky_relu": ActivationFacts(
        "x if x > 0 else slope * x, slope = 0.01", False, True, False, "Maas et al. 2013"
    ),
    "prelu": ActivationFacts(
        "x if x > 0 else a * x, a learned (0.25 at the start)", False, True, False, "He et al. 2015"
    ),
    "elu": ActivationFacts(
        "x if x > 0 else exp(x) - 1", True, True, False, "Clevert et al. 2016, arXiv:1511.07289"
    ),
    # One table of the notes has the two branches swapped; this is Klambauer et al., eq. 2.
    "selu": ActivationFacts(
        "1.0507 * x if x > 0 else 1.0507 * 1.6733 * (exp(x) - 1)",
        True,
        True,
        False,
        "Klambauer et al. 2017, arXiv:1706.02515, eq. 2",
    ),
    "maxout": ActivationFacts(
        "max over pieces of (w_k x + b_k)", False, True, False, "Goodfellow et al. 2013"
    ),
    "gelu": ActivationFacts(
        "x * Phi(x), Phi the normal distribution function",
        True,
        False,
        False,
        "Hendrycks & Gimpel 2016, arXiv:1606.08415",
    ),
    "quick_gelu": ActivationFacts(
        "x * sigmoid(1.702 x)", True, False, False, "Hendrycks & Gimpel 2016, section 2; CLIP"
    ),
    "softmax": ActivationFacts(
        "exp(x_i) / sum_j exp(x_j): for outputs, not between layers",
        True,
        False,
        False,
        "Bridle 1990",
    ),
}

_BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
}


def activation(
    name: str, *, slope: float = 0.01, width: int | None = None, pieces: int = 2
) -> nn.Module:
    """An activation by its name in `ACTIVATIONS`.

    slope: of "leaky_relu" left of zero. width, pieces: of "maxout", which is a layer with weights
    of its own, from [N, width] to [N, width]. "softmax" works along the last axis.

    Raises: RecipeError for an unknown name, or "maxout" without a width.
    """
    if name == "leaky_relu":
        return nn.LeakyReLU(slope)
    if name == "quick_gelu":
        quick: nn.Module = with_torchvision("timm.layers").QuickGELU()
        return quick
    if name == "softmax":
        return nn.Softmax(dim=-1)
    if name == "maxout":
        if width is None:
            raise RecipeError("maxout has weights of its own: give its width", param="width")
        return Maxout(width, width, pieces=pieces)
    if name not in _BUILDERS:
        known = ", ".join(ACTIVATIONS)
        raise RecipeError(f"unknown activation {name!r}; known: {known}", param="activation")
    return _BUILDERS[name]()
