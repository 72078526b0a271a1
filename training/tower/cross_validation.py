"""Rate and strength of a tower's change, chosen without the images that judge it.

Short trainings on parts of the support set say how each setting does on what they left out:

    with a retention set       two folds; kept are other categories, half of the retention set
    without, from 4 classes    one half of the classes is trained on, and what the tower then makes
                               of the other half is the retention; twice, the halves changed over
    otherwise                  two folds; retention stays unknown

    rate    the best held-out accuracy that the first part reaches at any of the strengths {0, 0.2,
            ..., 1} that lose at most one point of retention; among equals the lowest loss. (At full
            strength a high rate looks best, and then hardly any of it can be kept.)
    alpha   of {0, 0.1, ..., 1} between the old weights (0) and the new (1), the best on what was
            held out among those that lose at most one point of retention; the least among equals

Where a class has a single image nothing can be held out: the middle rate, and the largest alpha up
to 0.5 that retention allows (0.5 is what WiSE-FT recommends where nothing is known).

Source: Wortsman et al. 2022, arXiv:2109.01903, sections 2 and 4 (alpha); Zhou et al. 2022 (CoCoOp),
arXiv:2203.05557, section 4.1 (from base to new classes).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from training.averaging import ALPHAS
from training.data.dataset import Dataset, Retention
from training.data.splits import folds
from training.errors import DataError
from training.loop.facts import logits_of, scores
from training.losses import CrossEntropy
from training.tower.network import TowerNetwork, need_text
from training.transfer import AlphaSweep, interpolate, sweep_alpha

UNKNOWN_ALPHAS = ALPHAS[:6]
COARSE_ALPHAS = ALPHAS[::2]
State = Mapping[str, Tensor]
Train = Callable[[Dataset, float, str], State]


@dataclass(frozen=True, eq=False)
class Trial:
    """Train on data.train; data.val is held out, and so is `others`. Both may be empty."""

    data: Dataset
    others: Retention | None


@dataclass(frozen=True)
class Settings:
    """What the trials chose. sweep: over alpha, shares in [0, 1]; why: in words.

    others: images of categories that weren't trained on, behind the sweep's retention; 0: unknown
    """

    rate: float
    sweep: AlphaSweep
    why: str
    others: int

    @property
    def alpha(self) -> float:
        """The chosen strength."""
        return self.sweep.chosen.alpha


def trials(data: Dataset, *, seed: int) -> list[Trial]:
    """The parts of the support set of a Dataset of images, see above."""
    kept = None if data.retention is None else data.retention.halves()[0]
    if kept is None and len(data.classes) >= 4:
        found = []
        for number, (own, rest) in enumerate(class_halves(data, seed=seed)):
            parts = _folds(data.among(own), seed)
            found.append(Trial(parts[number % len(parts)], left_out(data, rest)))
        return found
    return [Trial(part, kept) for part in _folds(data, seed)]


def class_halves(data: Dataset, *, seed: int) -> list[tuple[list[int], list[int]]]:
    """The classes in two halves by chance: (trained on, left out), and the other way round."""
    count = len(data.classes)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    halves = sorted(order[: count // 2]), sorted(order[count // 2 :])
    return [halves, halves[::-1]]


def left_out(data: Dataset, classes: list[int]) -> Retention:
    """The training images of some classes, as categories that aren't trained on."""
    part = data.among(classes)
    return Retention(part.train, part.classes, need_text(part))


def _folds(data: Dataset, seed: int) -> list[Dataset]:
    """Two folds; the whole with nothing held out where a class has too little."""
    labels = data.train.labels.numpy()
    groups = None if data.train.groups is None else data.train.groups.numpy()
    try:
        pairs = folds(labels, groups, count=2, seed=seed)
    except DataError:  # a single image, or near-duplicates of one
        return [replace(data, val=data.train.pick([]))]
    return [data.fold(train.tolist(), held_out.tolist()) for train, held_out in pairs]


def choose_settings(
    base: TowerNetwork,
    data: Dataset,
    rates: Sequence[float],
    train: Train,
    *,
    seed: int,
    device: str,
) -> Settings:
    """Rate and alpha for a Dataset of images.

    train: (a trial's data, a rate, its stage in words) -> the tower's weights after training
    """
    parts = trials(data, seed=seed)
    looked_at = copy.deepcopy(base).to(device)  # base itself is what trainings start from
    nets = [looked_at.asking(need_text(p.data).among(p.data.others)) for p in parts]
    before = {k: v.detach().clone() for k, v in base.visual.state_dict().items()}
    blind = not all(len(part.data.val) for part in parts)
    tried = [rates[len(rates) // 2]] if blind else list(rates)
    total = len(tried) + len(parts) - 1
    results = []
    for number, rate in enumerate(tried, 1):
        state = train(parts[0].data, rate, f"choosing {number} of {total}")
        outcome = (0.0, 0.0) if blind else _reach(nets[0], parts[0], before, state, device)
        results.append((outcome, rate, state))
    (accuracy, _), rate, state = max(results, key=lambda result: result[0])
    after = [state]
    for number, part in enumerate(parts[1:], len(tried) + 1):
        after.append(train(part.data, rate, f"choosing {number} of {total}"))

    def score(states: State) -> tuple[float, float]:
        own = [_own(states, number) for number in range(len(parts))]
        retention = _retention(nets, parts, own, device)
        return (0.0 if blind else _held_out(nets, parts, own, device)[0]), retention

    sweep = sweep_alpha(
        _joined([before] * len(parts)),
        _joined(after),
        score,
        alphas=UNKNOWN_ALPHAS if blind else ALPHAS,
    )
    if blind:
        floor = sweep.scores[0].retention - 0.01 - 1e-9
        kept = [entry for entry in sweep.scores if entry.retention >= floor]
        sweep = AlphaSweep(sweep.scores, kept[-1])
    others = sum(0 if part.others is None else len(part.others.samples) for part in parts)
    return Settings(rate, sweep, _why(sweep, rate, accuracy, blind, others), others)


def _reach(
    net: TowerNetwork, part: Trial, before: State, after: State, device: str
) -> tuple[float, float]:
    """Held-out accuracy and minus the mean loss, at the best strength that forgets little."""

    def score(state: State) -> tuple[float, float]:
        kept = _retention([net], [part], [state], device)
        return _held_out([net], [part], [state], device)[0], kept

    alpha = sweep_alpha(before, after, score, alphas=COARSE_ALPHAS).chosen.alpha
    return _held_out([net], [part], [interpolate(before, after, alpha)], device)


def _held_out(
    nets: Sequence[TowerNetwork], parts: Sequence[Trial], states: Sequence[State], device: str
) -> tuple[float, float]:
    """Accuracy over all that is held out, and minus the mean loss."""
    right, loss, count = 0.0, 0.0, 0
    for net, part, state in zip(nets, parts, states, strict=True):
        net.visual.load_state_dict(state)
        val = part.data.val
        mean, accuracy = scores(
            logits_of(net, val.inputs, device=device), val.labels, CrossEntropy()
        )
        right, loss, count = right + accuracy * len(val), loss + mean * len(val), count + len(val)
    return right / count, -loss / count


def _retention(
    nets: Sequence[TowerNetwork], parts: Sequence[Trial], states: Sequence[State], device: str
) -> float:
    """Accuracy on the other categories, among themselves; 0 where there are none."""
    right, count = 0.0, 0
    for net, part, state in zip(nets, parts, states, strict=True):
        if part.others is not None:
            net.visual.load_state_dict(state)
            samples = part.others.samples
            there = net.asking(part.others.zero_shot).to(device)
            logits = logits_of(there, samples.inputs, device=device)
            right += float((logits.argmax(dim=1) == samples.labels).sum())
            count += len(samples)
    return right / count if count else 0.0


def _joined(states: Sequence[State]) -> dict[str, Tensor]:
    return {f"{n}/{name}": t for n, state in enumerate(states) for name, t in state.items()}


def _own(states: State, number: int) -> dict[str, Tensor]:
    start = f"{number}/"
    return {k.removeprefix(start): v for k, v in states.items() if k.startswith(start)}


def _why(sweep: AlphaSweep, rate: float, accuracy: float, blind: bool, others: int) -> str:
    if blind:
        chosen = "nothing can be held out of so few images, so the rate is the middle one"
    else:
        chosen = f"rate {rate:g} did best on held-out training images ({accuracy:.1%})"
    first, best = sweep.scores[0], sweep.chosen
    if not others:
        kept = "there is nothing to tell what it forgets"
    else:
        kept = f"other categories go from {first.retention:.1%} to {best.retention:.1%}"
    return f"{chosen}; alpha {best.alpha:g} between the old weights and the new: {kept}"
