"""Symmetric InfoNCE, the contrastive loss of CLIP.

    L = 1/2 [ CE(s I T^T, diagonal) + CE(s T I^T, diagonal) ],   I, T: unit rows, s: the logit scale

Each image picks its text among the batch's, and each text its image. At chance L = log N.

Source: Radford et al. 2021, arXiv:2103.00020, figure 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(images: Tensor, texts: Tensor, logit_scale: Tensor | float) -> Tensor:
    """images, texts: [N, D], unit rows, row i belongs to row i -> the loss, a scalar."""
    logits = logit_scale * images @ texts.T  # (N, N)
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
