"""Transfer learning: what may change of a pretrained network, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn

from training.averaging import AlphaScore, AlphaSweep, interpolate, sweep_alpha
from training.errors import RecipeError, require, with_torchvision
from training.parts import check_positive, check_share, part

__all__ = [
    "Advice",
    "AlphaScore",
    "AlphaSweep",
    "FeatureExtraction",
    "FullFineTune",
    "LoRA",
    "PartialUnfreeze",
    "Transfer",
    "advise",
    "blocks_and_head",
    "interpolate",
    "lora_targets",
    "merge",
    "settle_frozen",
    "sweep_alpha",
]


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


@runtime_checkable
class Transfer(Protocol):
    """A way of reusing a pretrained network."""

    def apply(self, network: nn.Module) -> nn.Module:
        """Freeze, wrap or leave; returns the network to train (the same object, or a wrapper)."""
        ...

    def lr_shares(self, network: nn.Module) -> Mapping[str, float]:
        """Parameters (by name in the applied network) that learn at a share of the rate."""
        ...

    def finish(self, network: nn.Module) -> nn.Module:
        """After training: the network to serve, without wrappers."""
        ...


@part
@dataclass(frozen=True)
class FeatureExtraction:
    """Train the last part of the network alone.

    For little data near the pretraining's. Frozen BatchNorm layers keep their averages. (For CLIP,
    use a head of `training.heads` on encoded features instead: the same, without running the tower
    again.)

    Source: Donahue et al. 2014 (DeCAF), arXiv:1310.1531.
    """

    def apply(self, network: nn.Module) -> nn.Module:
        """See `Transfer.apply`."""
        network.requires_grad_(False)
        blocks_and_head(network)[1][1].requires_grad_(True)
        return network

    def lr_shares(self, network: nn.Module) -> Mapping[str, float]:
        """None: the head learns at the full rate."""
        return {}

    def finish(self, network: nn.Module) -> nn.Module:
        """The network as it is."""
        return network


@part
@dataclass(frozen=True)
class FullFineTune:
    """Full fine-tuning: everything learns, the backbone at a tenth of the head's rate or less.

    For thousands of images. For CLIP's towers that means 1e-5..3e-5 (1e-1..1e-4 is for heads), with
    warmup, cosine decay and gradients clipped to norm 1, and afterwards interpolation with the
    weights from before (`training.averaging`).

    lr_share: the backbone's share of the head's rate, at most 0.1.

    Sources: Kornblith et al. 2019, arXiv:1805.08974, section 4.4; Wortsman et al. 2022,
    arXiv:2109.01903, appendix.
    """

    lr_share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.lr_share <= 0.1:
            raise RecipeError(
                f"a pretrained backbone wants at most a tenth of the rate, got {self.lr_share}",
                param="lr_share",
            )

    def apply(self, network: nn.Module) -> nn.Module:
        """See `Transfer.apply`."""
        return network.requires_grad_(True)

    def lr_shares(self, network: nn.Module) -> Mapping[str, float]:
        """`lr_share` for all but the head."""
        return backbone_shares(network, self.lr_share)

    def finish(self, network: nn.Module) -> nn.Module:
        """The network as it is."""
        return network


@part
@dataclass(frozen=True)
class PartialUnfreeze:
    """Partial unfreeze: the head and the last k blocks learn, what comes before stays.

    For more data: the last blocks are the most specific to what the network was pretrained on.

    blocks: how many, from the end; lr_share: their share of the head's rate.

    Source: Yosinski et al. 2014, arXiv:1411.1792.
    """

    blocks: int = 1
    lr_share: float = 0.1

    def __post_init__(self) -> None:
        check_positive("blocks", self.blocks)
        check_positive("lr_share", self.lr_share)
        check_share("lr_share", self.lr_share)

    def apply(self, network: nn.Module) -> nn.Module:
        """See `Transfer.apply`.

        Raises: RecipeError where the network has fewer blocks.
        """
        groups, (_, head) = blocks_and_head(network)
        if self.blocks > len(groups):
            raise RecipeError(
                f"blocks={self.blocks}, but the network has {len(groups)} before its head",
                param="blocks",
            )
        network.requires_grad_(False)
        head.requires_grad_(True)
        for group in groups[-self.blocks :]:
            for _, module in group:
                module.requires_grad_(True)
        return network

    def lr_shares(self, network: nn.Module) -> Mapping[str, float]:
        """`lr_share` for all that is trainable but the head."""
        return backbone_shares(network, self.lr_share)

    def finish(self, network: nn.Module) -> nn.Module:
        """The network as it is."""
        return network


def backbone_shares(network: nn.Module, share: float) -> dict[str, float]:
    """`share` for each parameter outside of the head."""
    head = {id(p) for p in blocks_and_head(network)[1][1].parameters()}
    return {name: share for name, p in network.named_parameters() if id(p) not in head}


_ADAPTER = "default"


@part
@dataclass(frozen=True)
class LoRA:
    """Learn a low-rank change of each matrix.

        W' = W + (alpha / r) B A,   A [r, in] random, B [out, r] = 0 at the start

    So the network starts unchanged, and a rank of 4 trains about a hundredth of the weights. peft
    does the work. For `nn.MultiheadAttention` its dropout is ignored and its forward merges the
    weights in place, so what is served is always the merged network (`finish`), which has no trace
    of peft.

    rank: r; alpha: None is 2 r; dropout: before A, not in attention; train_head: in full

    Sources: Hu et al. 2022, arXiv:2106.09685, section 4.1; Zanella & Ben Ayed 2024 (CLIP-LoRA),
    arXiv:2405.18541.
    """

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


FULL_FROM = 2000


@dataclass(frozen=True)
class Advice:
    """method: "zero-shot", "head", "auto-head", "lora" or "full"; why: in one sentence; reembed:
    whether the index must be embedded anew.
    """

    method: str
    why: str
    reembed: bool


def advise(counts: Sequence[int], *, accelerator: bool) -> Advice:
    """Which method for how much data: a decision with its reasons, before any training.

        Images a class | default
        0              | zero-shot
        1..3           | text head, anchored with 1/shots, no search
                       | (`choice.py` takes GDA from 2: see docs/decisions)
        4..15          | GDA or the text head, by cross-validation on the support set
        16 and more    | with an accelerator LoRA, from 2000 images full fine-tuning; else as before

    Published means over 11 data sets (ViT-B/16; 1/2/4/8/16 shots; several of these chose epochs or
    strengths on the test set, which is never done here): zero-shot 65.4; linear probe
    45.8/56.9/66.8/73.4/78.4; Tip-Adapter 68.9/70.4/72.7/74.4/76.4; GDA 69.4/73.1/76.2/79.7/81.7;
    LP++ 70.4/72.9/75.8/77.9/80.3; CLIP-LoRA 72.2/75.4/77.3/80.1/82.9.

    counts: labelled images of each class; accelerator: whether a GPU is at hand.

    Sources: Wang et al. 2024, arXiv:2402.04087 (GDA); Huang et al. 2024, arXiv:2404.02285 (LP++);
    Zanella & Ben Ayed 2024, arXiv:2405.18541 (CLIP-LoRA).
    """
    shots, total = min(counts, default=0), sum(counts)
    if shots == 0:
        return Advice("zero-shot", "a class has no image, so words have to do", reembed=False)
    few = f"the smallest class has {shots} image{'s' if shots > 1 else ''}"
    if shots < 4:
        return Advice(
            "head",
            f"{few}: a head that starts from the words and is held near them (a fresh linear head "
            "would be worse than the words alone)",
            reembed=False,
        )
    if shots < 16 or not accelerator:
        reason = (
            few if shots < 16 else f"{few}, but there is no accelerator to tune the model itself"
        )
        return Advice(
            "auto-head",
            f"{reason}: Gaussian discriminant or text head, whichever does better in "
            "cross-validation on these images",
            reembed=False,
        )
    if total >= FULL_FROM:
        return Advice(
            "full",
            f"{total} images and an accelerator: all weights at 1e-5..3e-5, then interpolated with "
            "the old ones",
            reembed=True,
        )
    return Advice("lora", f"{few}, and there is an accelerator: LoRA, merged", reembed=True)
