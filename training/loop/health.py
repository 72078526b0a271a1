"""Is every layer alive? Measured on a fixed sample at the end of each epoch.

Of activations, per layer, over samples (and positions):
    dead        share of units whose gradient is 0 for every sample: ReLU's at or below 0
    saturated   share of outputs within 2 % of the range's end: sigmoid outside (.02, .98), tanh's
                |y| > .98, ELU and SELU within 2 % of their floor
    mean        mean output: 0 for zero-centred units, above 0 for sigmoid and ReLU
Of parameters, per layer, at the epoch's last step:
    weight      norm of the weights
    gradient    norm of their gradient
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from training.initialisation import is_activation
from training.modes import evaluating

SAMPLE = 128
_FLOORS = {nn.ELU: -1.0, nn.SELU: -1.7580993408473766}

Health = dict[str, dict[str, float]]


@torch.no_grad()
def activation_health(network: nn.Module, inputs: Tensor) -> Health:
    """Layer name -> {"dead", "saturated", "mean"} for every activation module, in eval mode."""
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
    """Layer name -> {"weight", "gradient"} for each module with trainable parameters."""
    found: Health = {}
    for name, module in network.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.requires_grad]
        if own:
            gradients = [p.grad for p in own if p.grad is not None]
            found[name or "(all)"] = {"weight": _norm(own), "gradient": _norm(gradients)}
    return found


def _norm(tensors: list[nn.Parameter] | list[Tensor]) -> float:
    return float(sum(float(t.detach().double().square().sum()) for t in tensors) ** 0.5)
