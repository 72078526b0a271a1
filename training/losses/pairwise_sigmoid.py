"""The pairwise sigmoid loss of SigLIP: every image-text pair is a yes-or-no question.

    L = -1/N sum_ij log sigmoid( z_ij (s I_i T_j + b) ),   z_ij = 1 if i = j else -1

No softmax over the batch, so it splits over machines and works with small batches. b starts at -10,
because nearly all pairs are no.

Source: Zhai et al. 2023, arXiv:2303.15343, eq. 1 and algorithm 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pairwise_sigmoid(
    images: Tensor, texts: Tensor, logit_scale: Tensor | float, logit_bias: Tensor | float
) -> Tensor:
    """images, texts: [N, D], unit rows, row i belongs to row i -> the loss, a scalar."""
    logits = logit_scale * images @ texts.T + logit_bias  # (N, N)
    sign = 2 * torch.eye(len(logits), dtype=logits.dtype, device=logits.device) - 1
    return -F.logsigmoid(sign * logits).sum() / len(logits)
