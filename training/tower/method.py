"""The methods that change an image tower's weights, and what each is trained with.

    lora      low-rank changes of its linear and attention layers, merged afterwards
    partial   the last two blocks
    full      everything

Rates are those of the backbone times ten (`FullFineTune` and `PartialUnfreeze` give it a tenth), so
that 1e-4 is the literature's 1e-5; small convolutional towers want more than large transformers.
Which of `rates` is taken is decided within the support set (`crossfit.py`); `LEAST_STEPS` keeps a
handful of images from being seen a handful of times.

Sources: Zanella & Ben Ayed 2024 (CLIP-LoRA), arXiv:2405.18541; Wortsman et al. 2022 (WiSE-FT),
arXiv:2109.01903, appendix: 1e-5..3e-5, warmup, cosine, gradients clipped to norm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from training.augment import Crop, Flip
from training.data.dataset import Dataset
from training.errors import RecipeError
from training.optimisers import AdamW
from training.parts import part
from training.recipe import Recipe
from training.schedules import Cosine
from training.transfer import FullFineTune, LoRA, PartialUnfreeze

LEAST_STEPS = 40


@part
@dataclass(frozen=True)
class TunedTower:
    """The encoder's own image tower under its text vectors; `transfer` says what of it learns."""

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
