"""Which parameters decay, and how fast each layer learns.

    decay:        weights of 2 and more dimensions; not biases, norms, PReLU slopes, the logit scale
    layer decay:  lr_l = lr * d^(L - l): the nearer to the input, the slower

Sources: timm's `param_groups_weight_decay` and `param_groups_layer_decay`, which do the work; Clark
et al. 2020 (ELECTRA), arXiv:2003.10555, appendix A, for the layer-wise rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from training.errors import RecipeError
from training.extras import with_torchvision


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay and penalties act on a parameter."""
    return parameter.ndim > 1 and not name.endswith(".bias")


def parameter_groups(
    network: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    layer_decay: float | None,
    lr_shares: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Groups for a torch optimiser, over the parameters that may change.

    layer_decay: d above, in (0, 1]; the network then has to say which parameter belongs to which
    layer, by timm's `group_matcher`. lr_shares: of some parameters, by name, as a share of `lr`.

    Raises: RecipeError where nothing is trainable, or the layers aren't known.
    """
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise RecipeError("nothing to train: every parameter is frozen", param="method")
    timm_optim = with_torchvision("timm.optim")
    if layer_decay is None:
        groups: list[dict[str, Any]] = timm_optim.param_groups_weight_decay(network, weight_decay)
        shares = {id(p): (lr_shares or {}).get(n, 1.0) for n, p in network.named_parameters()}
        return [
            {**group, "params": same, "lr": lr * share}
            for group in groups
            for share, same in _by_share(group["params"], shares)
        ]
    if not hasattr(network, "group_matcher"):
        raise RecipeError(
            f"layer_decay needs to know the layers, but {type(network).__name__} has no "
            "group_matcher; drop layer_decay",
            param="layer_decay",
        )
    groups = timm_optim.param_groups_layer_decay(network, weight_decay, layer_decay=layer_decay)
    return [{**group, "lr": lr * group["lr_scale"]} for group in groups]


def _by_share(
    parameters: list[nn.Parameter], shares: Mapping[int, float]
) -> list[tuple[float, list[nn.Parameter]]]:
    found: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        found.setdefault(shares[id(parameter)], []).append(parameter)
    return list(found.items())
