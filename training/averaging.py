"""Several networks as one: weight-space interpolation, and ensembles of answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.errors import RecipeError
from training.parts import check_share
from training.randomness import evaluating

ALPHAS = tuple(step / 10 for step in range(11))


def interpolate(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """A state between two, as new tensors; counters (integers) come from the nearer end.

    Raises: RecipeError where the two don't hold the same tensors.
    """
    check_share("alpha", alpha)
    shapes = [{name: tuple(t.shape) for name, t in state.items()} for state in (before, after)]
    if shapes[0] != shapes[1]:
        raise RecipeError("only two states of the same network can be interpolated")
    if alpha in (0, 1):
        return {name: tensor.clone() for name, tensor in (after if alpha else before).items()}
    return {
        name: torch.lerp(a, after[name], alpha)
        if a.is_floating_point()
        else (after[name] if alpha >= 0.5 else a).clone()
        for name, a in before.items()
    }


@dataclass(frozen=True)
class AlphaScore:
    """Accuracies in [0, 1] at one alpha."""

    alpha: float
    validation: float
    retention: float


@dataclass(frozen=True)
class AlphaSweep:
    """All scores, and the chosen one."""

    scores: tuple[AlphaScore, ...]
    chosen: AlphaScore


def sweep_alpha(
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    score: Callable[[Mapping[str, Tensor]], tuple[float, float]],
    *,
    alphas: Sequence[float] = ALPHAS,
    retention_loss: float = 0.01,
) -> AlphaSweep:
    """Weight-space interpolation (WiSE-FT): how far to go from the old weights to the new.

        w(alpha) = (1 - alpha) * w_before + alpha * w_after

    Exact at both ends. alpha is swept over 0, 0.1, ..., 1 on validation *and* on a retention set
    (categories that were not trained on); the best on validation wins among those that lose at most
    one point of retention.

    score: a state -> (validation accuracy, retention accuracy), in [0, 1]
    retention_loss: how much of the retention at alpha = 0 may be lost

    Of equals on validation the smallest alpha wins: it has moved least. alpha = 0 always qualifies.

    Source: Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", arXiv:2109.01903, eq. 1.
    """
    scores = []
    for alpha in sorted({0.0, *alphas}):
        validation, retention = score(interpolate(before, after, alpha))
        scores.append(AlphaScore(alpha, validation, retention))
    floor = scores[0].retention - retention_loss - 1e-9  # sums of floats
    allowed = [entry for entry in scores if entry.retention >= floor]
    return AlphaSweep(
        tuple(scores), max(allowed, key=lambda entry: (entry.validation, -entry.alpha))
    )


@torch.no_grad()
def ensemble_probabilities(
    networks: Sequence[nn.Module], inputs: Tensor, *, combine: str = "mean"
) -> Tensor:
    """Several networks' answer: inputs [B, ...] -> probabilities [B, C], rows that sum to 1.

        mean:  p(x) = 1/M sum_m softmax(f_m(x))
        vote:  p(x) = share of networks whose best class it is; ties go by the mean probability

    combine: "mean" or "vote". Raises: RecipeError for no network, or another word.

    Sources: Hansen & Salamon 1990; Lakshminarayanan et al. 2017, arXiv:1612.01474, section 2.4.
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
