"""A CLIP's image tower as a network to train: pixels in, logits over the text vectors out.

    z_c = s * cos(f(x), t_c) (+ b for a sigmoid model)

The text vectors and the scale are buffers and never learn: the text tower stays as it is, so that
any category can still be asked for in words. At step 0 it is zero-shot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.augment import Crop, Flip
from training.data.dataset import Dataset, ZeroShot
from training.errors import RecipeError
from training.optimisers import AdamW
from training.parts import part
from training.recipe import Recipe
from training.schedules import Cosine
from training.transfer import FullFineTune, LoRA, Part, PartialUnfreeze, units


class TextClassifier(nn.Module):
    """Unit vectors [B, D] -> logits [B, C] at the model's own scale. Nothing in it learns.

    others: [M, D], text vectors of other categories; their logits follow, [B, C + M]. They aren't
    part of its state.
    """

    text: Tensor
    others: Tensor | None
    logit_scale: Tensor
    logit_bias: Tensor

    def __init__(self, zero_shot: ZeroShot, others: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("others", others, persistent=False)
        self.register_buffer("text", zero_shot.text.clone())  # (C, D)
        self.register_buffer("logit_scale", torch.tensor(zero_shot.logit_scale))
        bias = zero_shot.logit_bias
        self.register_buffer("logit_bias", torch.tensor(0.0 if bias is None else bias))

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] -> [B, C]."""
        text = self.text
        if self.others is not None:
            text = torch.cat([text, self.others])
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
        others: Tensor | None = None,
        *,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(tuple(mean))[:, None, None])
        self.register_buffer("std", torch.tensor(tuple(std))[:, None, None])
        self.visual = visual
        self.head = TextClassifier(zero_shot, others)

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

    def asking(self, zero_shot: ZeroShot, others: Tensor | None = None) -> TowerNetwork:
        """The same tower (not a copy) under other categories."""
        mean, std = self.mean.flatten().tolist(), self.std.flatten().tolist()
        other = TowerNetwork(self.visual, zero_shot, others, mean=mean, std=std)
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


LEAST_STEPS = 40


@part
@dataclass(frozen=True)
class TunedTower:
    """The encoder's own image tower under its text vectors; `transfer` says what of it learns.

        lora      low-rank changes of its linear and attention layers, merged afterwards
        partial   the last two blocks
        full      everything

    Rates are those of the backbone times ten (`FullFineTune` and `PartialUnfreeze` give it a
    tenth), so that 1e-4 is the literature's 1e-5; small convolutional towers want more than large
    transformers. Which of `rates` is taken is decided by cross-validation on the support set;
    `LEAST_STEPS` keeps a handful of images from being seen a handful of times.

    Sources: Zanella & Ben Ayed 2024 (CLIP-LoRA), arXiv:2405.18541; Wortsman et al. 2022 (WiSE-FT),
    arXiv:2109.01903, appendix: 1e-5..3e-5, warmup, cosine, gradients clipped to norm 1.
    """

    trained = True
    starts_at_zero_shot = True

    def build(self, data: Dataset) -> nn.Module:
        """Can't: the tower comes from the encoder."""
        raise RecipeError(
            "TunedTower needs the encoder's tower: use finetune_folder, or tune_tower",
            param="method",
        )

    def plain(self) -> TunedTower:
        """Itself."""
        return self


@dataclass(frozen=True)
class TowerMethod:
    """recipe: to train with, but for the rate and the epochs; rates: to choose the rate from, the
    middle one where there is too little to choose with.
    """

    recipe: Recipe
    rates: tuple[float, ...]

    def fitted_to(self, data: Dataset, *, seed: int) -> Recipe:
        """The recipe with the middle rate, and epochs enough for LEAST_STEPS steps."""
        recipe = self.recipe
        steps = -(-len(data.train) // recipe.batch_size)
        return recipe.replace(
            **{
                "seed": seed,
                "optimizer.lr": self.rates[len(self.rates) // 2],
                "epochs": max(recipe.epochs, -(-LEAST_STEPS // steps)),
            }
        )


def _recipe(transfer: LoRA | PartialUnfreeze | FullFineTune) -> Recipe:
    return Recipe(
        method=TunedTower(),
        transfer=transfer,
        optimizer=AdamW(weight_decay=1e-2),
        schedule=Cosine(warmup=0.1),
        augment=[Crop(), Flip()],
        epochs=6,
        batch_size=32,
        clip=1.0,
    )


TOWER_METHODS: Mapping[str, TowerMethod] = {
    "lora": TowerMethod(_recipe(LoRA(rank=4)), (3e-4, 2e-3, 1e-2)),
    "partial": TowerMethod(_recipe(PartialUnfreeze(blocks=2)), (1e-4, 1e-3, 5e-3)),
    "full": TowerMethod(_recipe(FullFineTune()), (1e-4, 1e-3, 5e-3)),
}
