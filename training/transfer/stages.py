"""A network as blocks from input to output, and its head."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import nn

Part = tuple[str, nn.Module]


@runtime_checkable
class Parted(Protocol):
    """A network that knows its own order."""

    def parts(self) -> list[Part]:
        """(name, module) from input to output; the last is the head."""
        ...


def blocks_and_head(network: nn.Module) -> tuple[list[list[Part]], Part]:
    """Groups of (name, module) that unfreeze together, in order; and the last part, the head.

    Sequential and ModuleList children are opened by one level, so that a vision transformer gives
    its patch embedding, each block and the head. What holds no matrix (a norm) goes with the block
    before it. A network that is `Parted` says itself what its parts are.
    """
    if isinstance(network, Parted):
        parts = network.parts()
    else:
        parts = [unit for name, child in network.named_children() for unit in units(name, child)]
    if len(parts) < 2:
        return [], parts[-1] if parts else ("", network)
    groups: list[list[Part]] = []
    for name, module in parts[:-1]:
        if not groups or any(parameter.ndim > 1 for parameter in module.parameters()):
            groups.append([])
        groups[-1].append((name, module))
    return groups, parts[-1]


def units(name: str, module: nn.Module) -> list[Part]:
    """A child as one part, or opened by one level; none where it has no parameters."""
    inner = [(n, child) for n, child in module.named_children() if _has_parameters(child)]
    own = any(True for _ in module.parameters(recurse=False))
    if isinstance(module, nn.Sequential | nn.ModuleList):
        return [(f"{name}.{n}", child) for n, child in inner]
    if len(inner) == 1 and not own and isinstance(inner[0][1], nn.Sequential | nn.ModuleList):
        return units(f"{name}.{inner[0][0]}", inner[0][1])
    return [(name, module)] if _has_parameters(module) else []


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def settle_frozen(network: nn.Module) -> None:
    """Put parts whose parameters are all frozen into eval mode: their BatchNorm averages stay, too.

    Call it after `network.train()`.
    """
    parameters = list(network.parameters())
    if not parameters:
        return
    if not any(parameter.requires_grad for parameter in parameters):
        network.eval()
        return
    for child in network.children():
        settle_frozen(child)
