"""PCA and ZCA whitening: decorrelate, and give every direction variance 1.

    cov = X^T X / N = U S U^T          (X centred, [N, D])
    PCA:  x' = x U (S + eps)^(-1/2)
    ZCA:  x' = x U (S + eps)^(-1/2) U^T    the whitening that changes x least

With eps = 0 and N > D the whitened training split has covariance I. eps damps directions that hold
nothing but noise. D x D numbers: meant for vectors and small images.

Sources: the lecture's preprocessing slide; Bell & Sejnowski 1997 (ZCA).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.errors import RecipeError
from training.parts import check_choice, check_not_negative, part
from training.preprocessing.fitted import LinearMap

MAX_WIDTH = 4096


@part
@dataclass(frozen=True)
class Whitening:
    """Whiten the flattened sample by "pca" or "zca"."""

    kind: str = "zca"
    eps: float = 1e-5

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, ("pca", "zca"))
        check_not_negative("eps", self.eps)

    def fit(self, inputs: Tensor) -> nn.Module:
        """See `Preprocessing.fit`.

        Raises: RecipeError where a sample has more than 4096 values.
        """
        flat = inputs.flatten(1).double()  # (N, D)
        width = flat.shape[1]
        if width > MAX_WIDTH:
            raise RecipeError(
                f"whitening {width} values a sample needs a {width} x {width} matrix; "
                f"use ChannelStandard, or inputs of at most {MAX_WIDTH} values",
                param="preprocess",
            )
        mean = flat.mean(dim=0)
        centred = flat - mean
        eigenvalues, vectors = torch.linalg.eigh(centred.T @ centred / len(flat))
        scale = (eigenvalues.clamp_min(0) + self.eps).rsqrt()
        # a direction without any spread has nothing to divide by
        scale = torch.where(scale.isfinite(), scale, torch.zeros_like(scale))
        matrix = vectors * scale  # (D, D)
        if self.kind == "zca":
            matrix = matrix @ vectors.T
        return LinearMap(mean.to(inputs.dtype), matrix.to(inputs.dtype))
