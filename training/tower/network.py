"""A CLIP's image tower as a network to train: pixels in, logits over the text vectors out.

    z_c = s * cos(f(x), t_c) (+ b for a sigmoid model)

The text vectors and the scale are buffers and never learn: the text tower stays as it is, so that
any category can still be asked for in words. At step 0 it is zero-shot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.data.dataset import Dataset, ZeroShot
from training.errors import RecipeError
from training.transfer.stages import Part, units


class TextClassifier(nn.Module):
    """Unit vectors [B, D] -> logits [B, C] at the model's own scale. Nothing in it learns.

    rivals: [M, D]; their logits follow, [B, C + M]. They aren't part of its state.
    """

    text: Tensor
    rivals: Tensor | None
    logit_scale: Tensor
    logit_bias: Tensor

    def __init__(self, zero_shot: ZeroShot, rivals: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("rivals", rivals, persistent=False)
        self.register_buffer("text", zero_shot.text.clone())  # (C, D)
        self.register_buffer("logit_scale", torch.tensor(zero_shot.logit_scale))
        bias = zero_shot.logit_bias
        self.register_buffer("logit_bias", torch.tensor(0.0 if bias is None else bias))

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] -> [B, C]."""
        text = self.text
        if self.rivals is not None:
            text = torch.cat([text, self.rivals])
        return self.logit_scale * (x @ text.T) + self.logit_bias


class TowerNetwork(nn.Module):
    """Images in [0, 1], sized for the tower -> logits.

    BatchNorm layers keep the pretraining's averages: a handful of images has none of its own, and
    what is not trained can be interpolated and split over processes.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        visual: nn.Module,
        zero_shot: ZeroShot,
        rivals: Tensor | None = None,
        *,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(tuple(mean))[:, None, None])
        self.register_buffer("std", torch.tensor(tuple(std))[:, None, None])
        self.visual = visual
        self.head = TextClassifier(zero_shot, rivals)

    def features(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> [B, D], rows of unit norm."""
        return F.normalize(self.visual((x - self.mean) / self.std), dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> [B, C]."""
        logits: Tensor = self.head(self.features(x))
        return logits

    def train(self, mode: bool = True) -> Self:
        """As nn.Module's, but BatchNorm stays in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def asking(self, zero_shot: ZeroShot, rivals: Tensor | None = None) -> TowerNetwork:
        """The same tower (not a copy) under other categories."""
        mean, std = self.mean.flatten().tolist(), self.std.flatten().tolist()
        other = TowerNetwork(self.visual, zero_shot, rivals, mean=mean, std=std)
        return other.to(self.mean.device).train(self.training)

    def parts(self) -> list[Part]:
        """The tower's blocks from input to output, then the head (see `blocks_and_head`)."""
        found: list[Part] = []
        for name, child in self.visual.named_children():
            if name == "trunk":  # timm's: one level down are its stages
                for inner, stage in child.named_children():
                    found += units(f"visual.trunk.{inner}", stage)
            else:
                found += units(f"visual.{name}", child)
        return [*found, ("head", self.head)]


def need_text(data: Dataset) -> ZeroShot:
    """The text vectors of a Dataset, of features or of images.

    Raises: RecipeError where it has none.
    """
    if data.zero_shot is None:
        raise RecipeError("to tune a model, its text vectors are needed: encode the folder first")
    return data.zero_shot
