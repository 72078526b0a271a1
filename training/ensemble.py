"""Ensembles: several networks answer together.

    mean:  p(x) = 1/M sum_m softmax(f_m(x))
    vote:  p(x) = share of networks whose best class it is; ties go by the mean probability

Source: the lecture's model ensembles; Lakshminarayanan et al. 2017, arXiv:1612.01474.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.errors import RecipeError
from training.modes import evaluating


@torch.no_grad()
def ensemble_probabilities(
    networks: Sequence[nn.Module], inputs: Tensor, *, combine: str = "mean"
) -> Tensor:
    """inputs [B, ...] -> probabilities [B, C], rows that sum to 1.

    combine: "mean" or "vote". Raises: RecipeError for no network, or another word.
    """
    if not networks:
        raise RecipeError("an ensemble needs at least one network")
    every = []
    for network in networks:
        with evaluating(network):
            every.append(network(inputs).softmax(dim=1))
    stack = torch.stack(every)  # (M, B, C)
    if combine == "mean":
        return stack.mean(dim=0)
    if combine == "vote":
        return F.one_hot(stack.argmax(dim=2), stack.shape[2]).float().mean(dim=0)
    raise RecipeError(f'combine must be "mean" or "vote", got {combine!r}', param="combine")


def ensemble_answers(
    networks: Sequence[nn.Module], inputs: Tensor, *, combine: str = "mean"
) -> Tensor:
    """inputs [B, ...] -> class numbers int64 [B]; ties of a vote go by the mean probability."""
    shares = ensemble_probabilities(networks, inputs, combine=combine)
    if combine == "vote":
        # far below one vote's share, so it only decides ties
        shares = shares + 1e-3 / len(networks) * ensemble_probabilities(networks, inputs)
    return shares.argmax(dim=1)
