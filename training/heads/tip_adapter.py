"""Tip-Adapter: the support images as a key-value cache beside the text classifier.

    a_i = exp(-beta * (1 - x k_i)),   k_i: the support images' features (keys)
    z_c = zero-shot + alpha * (mean of a_i over the keys of class c)

The paper sums instead; the mean gives classes of different size the same say, and with K shots each
is the paper's with alpha / K.

Without training it is ready at once; alpha and beta are chosen by stratified cross-validation
within the support set (the paper chose them on the test set); where a class has a single image
nothing can be held out, and they are the paper's starting values, 1 and 5.5. `trained=True`
(Tip-Adapter-F) then learns the keys. alpha = 0 is zero-shot to the bit. Every view of an image is a
key of its own.

Source: Zhang et al. 2022, arXiv:2111.03930, eq. 3-6.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.data.dataset import Dataset, ZeroShot
from training.heads.cross_validation import best_by_folds, log_softmax
from training.heads.feature_head import FeatureHead
from training.networks import need_zero_shot
from training.parts import check_not_negative, check_positive, part

BLIND = (1.0, 5.5)
ALPHAS = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0)
BETAS = (1.0, 3.0, 5.5, 10.0, 30.0)


class CacheHead(FeatureHead):
    """zero-shot + alpha * mean affinity to the keys of each class."""

    values: Tensor
    alpha: Tensor
    beta: Tensor
    temperature: Tensor | None

    def __init__(
        self,
        zero_shot: ZeroShot,
        keys: Tensor,
        values: Tensor,
        *,
        alpha: float,
        beta: float,
        temperature: float | None = None,
    ) -> None:
        super().__init__(zero_shot)
        self.keys = nn.Parameter(keys.clone())  # (N, D)
        self.register_buffer("values", values.clone())  # (N, C)
        self.register_buffer("alpha", torch.tensor(alpha))
        self.register_buffer("beta", torch.tensor(beta))
        cooled = None if temperature is None else torch.tensor(temperature)
        self.register_buffer("temperature", cooled)  # None: 1

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] -> [B, C]."""
        affinity = torch.exp(-self.beta * (1 - x @ F.normalize(self.keys, dim=1).T))  # (B, N)
        logits = self.zero_shot_logits(x) + self.alpha * (affinity @ self.values)
        return logits if self.temperature is None else logits / self.temperature

    @classmethod
    def _empty(cls, zero_shot: ZeroShot, tensors: Mapping[str, Tensor]) -> Self:
        strength = {"alpha": float(tensors["alpha"]), "beta": float(tensors["beta"])}
        if "temperature" in tensors:
            strength["temperature"] = float(tensors["temperature"])
        return cls(zero_shot, tensors["keys"], tensors["values"], **strength)


@part
@dataclass(frozen=True)
class TipAdapter:
    """alpha, beta: None chooses them within the support set; trained: learn the keys afterwards."""

    alpha: float | None = None
    beta: float | None = None
    trained: bool = False
    folds: int = 5
    seed: int = 0
    temperature: float | None = None
    level: tuple[float, float, float] | None = None

    starts_at_zero_shot = False

    def __post_init__(self) -> None:
        if self.alpha is not None:
            check_not_negative("alpha", self.alpha)
        if self.beta is not None:
            check_positive("beta", self.beta)

    def build(self, data: Dataset) -> nn.Module:
        """See `Method.build`: the cache is filled when it returns."""
        zero_shot = need_zero_shot(data, "TipAdapter")
        alphas = ALPHAS if self.alpha is None else (self.alpha,)
        betas = BETAS if self.beta is None else (self.beta,)
        settings = tuple(itertools.product(alphas, betas))

        def predict(fold: Dataset, setting: tuple[float, float]) -> np.ndarray:
            head = _fill(fold, zero_shot, *setting)
            with torch.no_grad():
                return log_softmax(head(fold.val.first_views()).numpy())

        alpha, beta = settings[0]
        if len(settings) > 1 and data.distinct_shots < 2:
            alpha = BLIND[0] if self.alpha is None else self.alpha
            beta = BLIND[1] if self.beta is None else self.beta
        elif len(settings) > 1:
            alpha, beta = best_by_folds(data, settings, predict, count=self.folds, seed=self.seed)
        head = _fill(data, zero_shot, alpha, beta, temperature=self.temperature)
        return head.set_level(self.level).requires_grad_(self.trained)

    def plain(self) -> TipAdapter:
        """Itself."""
        return replace(self)


def _fill(
    data: Dataset,
    zero_shot: ZeroShot,
    alpha: float,
    beta: float,
    *,
    temperature: float | None = None,
) -> CacheHead:
    keys, labels = data.train.all_views()
    values = F.one_hot(labels, len(data.classes)).float()
    values = values / values.sum(dim=0)  # classes of different size weigh the same
    return CacheHead(zero_shot, keys, values, alpha=alpha, beta=beta, temperature=temperature)
