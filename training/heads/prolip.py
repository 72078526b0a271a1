"""Only the projection learns: one matrix behind the image tower, which new categories share.

    v = x M / |x M|,   M = I + D, D = 0 at the start
    z_c = s * cos(v, t_c);   loss + anchor * |D|^2,   anchor = 1 / shots

The paper tunes the image tower's last linear map W and holds it near what it was. Here W' = W M:
features are enough to train on, no tower is touched, what is in an index needs one multiplication,
and M folds into W for good (`training.exporting`). No class has weights of its own, so categories
that weren't trained on gain or lose like the others; the text vectors stay as they are. At step 0
it is zero-shot, up to the rounding of one normalisation.

Source: Fahes et al. 2024, "CLIP's Visual Embedding Projector is a Few-shot Cornucopia" (ProLIP),
arXiv:2410.05270, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.data.dataset import Dataset, ZeroShot
from training.errors import RecipeError
from training.heads.feature_head import FeatureHead
from training.networks import need_zero_shot
from training.parts import check_not_negative, part


class ProjectionHead(FeatureHead):
    """The text vectors, asked with projected features."""

    keeps_level = True

    def __init__(
        self, zero_shot: ZeroShot, others: Tensor | None = None, *, anchor: float = 0.0
    ) -> None:
        super().__init__(zero_shot, others)
        width = zero_shot.text.shape[1]
        self.delta = nn.Parameter(torch.zeros(width, width))
        self.anchor = anchor

    def project(self, x: Tensor) -> Tensor:
        """See `FeatureHead.project`: x M, scaled to unit length."""
        return F.normalize(x + x @ self.delta, dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] -> [B, C]."""
        seen = self.project(x)
        return self.among_others(self.zero_shot_logits(seen), seen)

    def matrix(self) -> Tensor:
        """M, [D, D]."""
        return torch.eye(len(self.delta)) + self.delta.detach()

    def own_penalty(self) -> Tensor:
        """The anchor."""
        penalty: Tensor = self.anchor * self.delta.square().sum()
        return penalty

    @classmethod
    def _empty(cls, zero_shot: ZeroShot, tensors: Mapping[str, Tensor]) -> Self:
        return cls(zero_shot)


@part
@dataclass(frozen=True)
class ProLIP:
    """anchor: "1/shots" or a number."""

    anchor: str | float = "1/shots"

    trained = True
    starts_at_zero_shot = True

    def __post_init__(self) -> None:
        if isinstance(self.anchor, str):
            if self.anchor != "1/shots":
                raise RecipeError(
                    f'anchor must be "1/shots" or a number, got {self.anchor!r}', param="anchor"
                )
        else:
            check_not_negative("anchor", self.anchor)

    def build(self, data: Dataset) -> nn.Module:
        """See `Method.build`."""
        zero_shot = need_zero_shot(data, "ProLIP")
        anchor = 1 / data.shots if isinstance(self.anchor, str) else self.anchor
        return ProjectionHead(zero_shot, data.others, anchor=anchor)

    def plain(self) -> ProLIP:
        """No anchor."""
        return replace(self, anchor=0.0)
