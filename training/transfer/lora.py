"""LoRA: learn a low-rank change of each matrix.

    W' = W + (alpha / r) B A,   A [r, in] random, B [out, r] = 0 at the start

So the network starts unchanged, and a rank of 4 trains about a hundredth of the weights. peft does
the work. For `nn.MultiheadAttention` its dropout is ignored and its forward merges the weights in
place, so what is served is always the merged network (`finish`), which has no trace of peft.

Sources: Hu et al. 2022, arXiv:2106.09685, section 4.1; Zanella & Ben Ayed 2024 (CLIP-LoRA),
arXiv:2405.18541.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from training.errors import RecipeError
from training.extras import require, with_torchvision
from training.parts import check_positive, check_share, part
from training.transfer.stages import blocks_and_head

_ADAPTER = "default"


@part
@dataclass(frozen=True)
class LoRA:
    """rank r; alpha (None: 2 r); dropout before A, not in attention; train_head: in full."""

    rank: int = 4
    alpha: float | None = None
    dropout: float = 0.0
    train_head: bool = True

    def __post_init__(self) -> None:
        check_positive("rank", self.rank)
        check_share("dropout", self.dropout, upper_open=True)
        if self.alpha is not None:
            check_positive("alpha", self.alpha)

    def apply(self, network: nn.Module) -> nn.Module:
        """See `Transfer.apply`.

        Raises: RecipeError where there is no matrix to adapt.
        """
        with_torchvision("torchvision")  # peft reaches it by way of transformers
        peft = require("peft", needed_for="LoRA")
        _, (head_name, head) = blocks_and_head(network)
        targets = lora_targets(network, without=head_name)
        if not targets:
            raise RecipeError(
                "LoRA found no linear or attention layer before the head", param="transfer"
            )
        settings = peft.LoraConfig(
            r=self.rank,
            lora_alpha=2 * self.rank if self.alpha is None else self.alpha,
            lora_dropout=self.dropout,
            target_modules=targets,
            bias="none",
        )
        wrapped: nn.Module = peft.tuners.lora.LoraModel(network, {_ADAPTER: settings}, _ADAPTER)
        if self.train_head:
            head.requires_grad_(True)
        return wrapped

    def lr_shares(self, network: nn.Module) -> Mapping[str, float]:
        """None: the new matrices learn at the full rate."""
        return {}

    def finish(self, network: nn.Module) -> nn.Module:
        """The network with the change added to its weights."""
        return merge(network)


def merge(network: nn.Module) -> nn.Module:
    """W + (alpha / r) B A in place of each adapted layer; peft's wrappers are gone.

    Raises: RecipeError for a network without LoRA.
    """
    unload = getattr(network, "merge_and_unload", None)
    if unload is None:
        raise RecipeError("this network carries no LoRA to merge", param="transfer")
    merged: nn.Module = unload(safe_merge=True)
    return merged


def lora_targets(network: nn.Module, *, without: str) -> list[str]:
    """Names of the attention and linear layers outside of the head."""
    attention = [n for n, m in network.named_modules() if isinstance(m, nn.MultiheadAttention)]
    inside = tuple(f"{name}." for name in attention)  # peft adapts the attention's own projections
    linear = [
        name
        for name, module in network.named_modules()
        if type(module) is nn.Linear and not name.startswith(inside)
    ]
    return [
        name
        for name in attention + linear
        if name != without and not name.startswith(f"{without}.")
    ]
