"""`auto`: every candidate measured by repeated stratified folds, the winner refitted on all images.

1. In each fold all classifiers learn from the other folds' images and answer for this one's. The
   answers for all images, out of fold, are what everything below is decided by.
2. A candidate is the words' logits and one classifier's, summed with the weights that give the
   out-of-fold answers the best likelihood: from "words only" to "no words", and the temperature.
   The blend sums all of them. A classifier's strength is decided by the same likelihood.
3. Among other categories a level (see `FeatureHead.level`) is fitted to the out-of-fold answers.
4. The blend wins if its mean log-likelihood is within one standard error of the best candidate's,
   else the simplest one that is; the error is that of the paired differences, image by image. A sum
   of shrunk weights varies least from draw to draw: over 18 tasks that the rule was not made with,
   the blend was right 1.3 points more often than the simplest candidate within one standard error.
5. The winner is refitted on all images with the settings chosen.

With one image a class nothing can be held out. The words have seen none of the images, so that
these say how far to trust the words; the class means count half, which was never worse than the
better of words and class means by more than a point on ten tasks (docs/finetuning.md).

Likelihood, not accuracy: 20 images can have 21 different accuracies, and between candidates they
differ by chance.

Sources: Breiman et al. 1984, "Classification and Regression Trees", section 3.4.3 (one standard
error); Breiman 1996, "Stacked regressions", Machine Learning 24; Stone 1974, "Cross-validatory
choice and assessment of statistical predictions", JRSS B 36.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from training.data.dataset import Dataset, Samples, ZeroShot
from training.data.splits import folds
from training.heads import TipAdapter
from training.heads.blend import (
    KINDS,
    Blend,
    Floats,
    Ints,
    Member,
    Support,
    stack,
    strengths,
)
from training.heads.level import Level, Side, fitted_level, imagined_images
from training.judging.metrics import ranked_logits
from training.loop import fit
from training.names import MEASURED_NAMES
from training.networks import Method, need_zero_shot
from training.recipe import Recipe

ZERO_SHOT, MEANS, TIP, BLEND = "zero-shot", "class-means", "tip-adapter", "blend"
CANDIDATES = (ZERO_SHOT, *MEASURED_NAMES)  # the simplest first
FOLDS = 5
FITS = 12  # about as many folds are asked in all, so that few images are asked in many ways
MANY = 2000  # images: from here one fold tells enough
SHARPNESS = (3.0, 10.0)  # of Tip-Adapter
FEW_WEIGHT = 0.5  # of the class means, with one image a class


@dataclass(frozen=True)
class Standing:
    """One candidate on the leaderboard.

    accuracy: share of right out-of-fold answers, with `interval` (95 %, over images); likelihood:
    mean log-probability of the right answer; behind: how much below the best, `error` its standard
    error. All None where nothing could be held out.
    settings: what the folds decided, in words
    """

    name: str
    method: Method
    settings: str
    accuracy: float | None = None
    interval: tuple[float, float] | None = None
    likelihood: float | None = None
    behind: float | None = None
    error: float | None = None


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Answers for images that the classifier had not learnt from.

    tuned, zero: logits float32 [M, C], or [M, C + R] with R other categories; labels int64 [M];
    image: which image each row is, int64 [M]; an image is asked once a repetition
    """

    tuned: torch.Tensor
    zero: torch.Tensor
    labels: torch.Tensor
    image: torch.Tensor


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """All candidates, the best likelihood first; `winner` by the rule of one standard error.

    images: different images that every figure stands on; folds, repeats: how they were asked
    answers: the winner's, None where nothing could be held out
    """

    standings: tuple[Standing, ...]
    winner: Standing
    images: int
    folds: int
    repeats: int
    answers: OutOfFold | None = field(default=None, repr=False)

    def plain(self) -> dict[str, Any]:
        """As it stands in metrics.json."""
        return {
            "winner": self.winner.name,
            "images": self.images,
            "folds": self.folds,
            "repeats": self.repeats,
            "candidates": [
                {
                    "name": row.name,
                    "settings": row.settings,
                    "accuracy": row.accuracy,
                    "interval": None if row.interval is None else list(row.interval),
                    "log_likelihood": row.likelihood,
                    "behind": row.behind,
                    "standard_error": row.error,
                }
                for row in self.standings
            ],
        }

    @property
    def why(self) -> str:
        """The choice in a sentence."""
        if self.winner.accuracy is None or self.winner.interval is None:
            return (
                f"{self.winner.settings}; with one image a class nothing could be held out, so "
                "nothing is measured"
            )
        low, high = self.winner.interval
        return (
            f"{self.winner.settings}: {self.winner.accuracy:.1%} out of fold ({low:.1%} to "
            f"{high:.1%}, {self.images} images), chosen among {len(self.standings)} candidates by "
            "log-likelihood"
        )


def leaderboard(data: Dataset, *, seed: int = 0, only: Sequence[str] = CANDIDATES) -> Leaderboard:
    """Measure the candidates on the training side of features; the validation side isn't looked at.

    only: the names of those to measure
    """
    zero_shot = need_zero_shot(data, "auto")
    if data.distinct_shots < 2:
        return _unmeasured(data, zero_shot, only)
    asked = _Asked(data, zero_shot, seed)
    members = [name for name in CANDIDATES if name in only or (name in KINDS and BLEND in only)]
    parts = {name: _candidate(asked, name) for name in members if name != BLEND}
    found = [parts[name] for name in members if name in only and name != BLEND]
    if BLEND in only:
        found.append(_blended(asked, list(parts.values())))
    best = max(found, key=lambda c: c.likelihood)
    rows = {c.name: _standing(c, best, asked) for c in found}
    near = [c for c in found if best.likelihood - c.likelihood <= (rows[c.name].error or 0.0)]
    winner = min(near, key=lambda c: (c.name != BLEND, CANDIDATES.index(c.name)))
    ordered = sorted(rows.values(), key=lambda row: row.behind or 0.0)
    return Leaderboard(
        tuple(ordered),
        rows[winner.name],
        asked.images,
        asked.folds,
        asked.repeats,
        asked.answers(winner),
    )


@dataclass(eq=False)
class _Candidate:
    """Held-out logits [M, C] (weighted sum), and how to build the same on all images."""

    name: str
    parts: list[tuple[str, float, Floats]]  # kind, strength, held-out logits
    words: float
    weights: Floats
    logits: Floats
    level: Level | None = None
    each: Floats = field(default_factory=lambda: np.zeros(0))  # log-likelihood by row
    right: Floats = field(default_factory=lambda: np.zeros(0))
    likelihood: float = 0.0

    def method(self) -> Method:
        if self.name == TIP:
            ((_, sharpness, _),) = self.parts
            return TipAdapter(
                alpha=float(_ruler(sharpness) * self.weights[0] / self.words),
                beta=sharpness,
                temperature=float(1 / self.words),
                level=self.level,
            )
        members = tuple(
            Member(kind, strength, float(weight))
            for (kind, strength, _), weight in zip(self.parts, self.weights, strict=True)
        )
        return Blend(float(self.words), members, self.level)

    def settings(self) -> str:
        if not self.parts:
            return f"the words alone, weight {self.words:.2g}"
        own = ", ".join(
            f"{kind}{f' {strength:g}' if strength else ''} x {weight:.2g}"
            for (kind, strength, _), weight in zip(self.parts, self.weights, strict=True)
        )
        return f"words x {self.words:.2g} + {own}"


class _Asked:
    """All classifiers' out-of-fold logits: one row for each time that an image was held out."""

    def __init__(self, data: Dataset, zero_shot: ZeroShot, seed: int) -> None:
        self.data, self.zero_shot, self.seed = data, zero_shot, seed
        self.folds = min(FOLDS, data.distinct_shots)
        size = len(data.train)
        self.repeats = 1 if size > MANY // 4 else max(2, round(FITS / self.folds))
        plain = data.train.first_views()
        words = zero_shot.logits(plain).numpy().astype(np.float64)
        rows: list[Ints] = []
        own: dict[tuple[str, float], list[Floats]] = {}
        for train, held_out in self._splits():
            rows.append(held_out)
            part = data.train.pick(train.tolist())
            x = plain[held_out.tolist()].numpy().astype(np.float64)
            for key, answers in _own_answers(part, zero_shot, x):
                own.setdefault(key, []).append(answers)
        self.row = np.concatenate(rows)
        self.own = {key: np.concatenate(parts) for key, parts in own.items()}
        self.labels: Ints = data.train.labels.numpy()[self.row]
        self.words: Floats = words[self.row]
        times = np.bincount(self.row, minlength=size)
        self.share: Floats = 1 / times[self.row]
        self.images = int((times > 0).sum())
        self.others: Floats | None = None
        self.imagined: torch.Tensor | None = None
        if data.others is not None:
            logits = replace(zero_shot, text=data.others).logits(plain).numpy().astype(np.float64)
            self.others = logits[self.row]

    def _splits(self) -> Iterator[tuple[Ints, Ints]]:
        labels, groups = self.data.train.labels.numpy(), self.data.train.groups
        numbers = None if groups is None else groups.numpy()
        for repeat in range(self.repeats):
            found = folds(labels, numbers, count=self.folds, seed=self.seed + repeat)
            yield from found[:1] if len(labels) > MANY else found

    def plain_likelihood(self, candidate: _Candidate) -> float:
        """Among the classes alone."""
        z = candidate.logits
        each = z[np.arange(len(z)), self.labels] - log_sum(z)
        return float((self.share * each).sum())

    def by_image(self, values: Floats) -> Floats:
        """Values by row -> means by image, of the images that were asked."""
        size = len(self.data.train)
        total = np.bincount(self.row, weights=values * self.share, minlength=size)
        return np.asarray(total[np.bincount(self.row, minlength=size) > 0])

    def settle(self, candidate: _Candidate) -> _Candidate:
        """Fit the level, and measure."""
        z, rows = candidate.logits, np.arange(len(self.labels))
        log_p = z - log_sum(z)[:, None]
        right = z.argmax(axis=1) == self.labels
        candidate.each = log_p[rows, self.labels]
        if self.others is not None:
            rest = log_sum(self.others)
            own, words = log_sum(z), log_sum(self.words)
            candidate.level = self._level(candidate, words, own, rest)
            level = _at(candidate.level, words, own)
            candidate.each = candidate.each + level - np.logaddexp(level, rest)
            right &= log_p.max(axis=1) + level > self.others.max(axis=1)
        candidate.right = right.astype(np.float64)
        candidate.likelihood = float(self.by_image(candidate.each).mean())
        return candidate

    def _level(self, candidate: _Candidate, words: Floats, own: Floats, rest: Floats) -> Level:
        """Between the taught images, out of fold, and the other categories' imagined ones."""
        others = self.data.others
        assert others is not None
        if self.imagined is None:
            self.imagined = imagined_images(self.data, self.zero_shot, others, seed=self.seed)
        taught = (words, own, rest, self.share)
        return _level_between(taught, candidate.method(), self.data, self.zero_shot, self.imagined)

    def answers(self, candidate: _Candidate) -> OutOfFold:
        """Of one candidate, as it would be served."""
        z, words = candidate.logits, self.words
        if self.others is not None and candidate.level is not None:
            level = _at(candidate.level, log_sum(words), log_sum(z))
            z = z - log_sum(z)[:, None] + level[:, None]
            z, words = np.hstack([z, self.others]), np.hstack([words, self.others])
        tensors = [torch.from_numpy(v).float() for v in (z, words)]
        return OutOfFold(
            tensors[0], tensors[1], torch.from_numpy(self.labels), torch.from_numpy(self.row)
        )


def _level_between(
    taught: Side, method: Method, data: Dataset, zero_shot: ZeroShot, imagined: torch.Tensor
) -> Level:
    """Between what is known of the taught images, and the other categories' imagined ones.

    method: without a level
    """
    assert data.others is not None
    head = method.build(data)
    with torch.no_grad():
        sides = [
            zero_shot.logits(imagined),
            head(imagined),
            replace(zero_shot, text=data.others).logits(imagined),
        ]
    words, own, rest = (log_sum(logits.numpy().astype(np.float64)) for logits in sides)
    return fitted_level(taught, (words, own, rest, np.ones(len(imagined))))


def log_sum(logits: Floats) -> Floats:
    """Logarithm of the summed exponentials of each row: [M, C] -> [M]."""
    peak = logits.max(axis=1)
    return np.asarray(peak + np.log(np.exp(logits - peak[:, None]).sum(axis=1)))


def _at(level: Level, words: Floats, own: Floats) -> Floats:
    return level[0] * words + level[1] * own + level[2]


def _own_answers(
    part: Samples, zero_shot: ZeroShot, x: Floats
) -> Iterator[tuple[tuple[str, float], Floats]]:
    """Every classifier's logits [M, C] for x, learnt from a part of the images."""
    text = zero_shot.text.numpy().astype(np.float64)
    support = Support(part, text, zero_shot.logit_scale)
    for kind in KINDS:
        for strength in strengths(kind):
            weight, bias = support.solve(kind, strength)
            yield (kind, strength), x @ weight.T + bias
    counts = np.bincount(support.labels, minlength=len(text))
    values = np.eye(len(text))[support.labels] / counts
    cosines = x @ support.x.T
    for sharpness in SHARPNESS:
        yield (TIP, sharpness), _ruler(sharpness) * np.exp(sharpness * (cosines - 1)) @ values


def _ruler(sharpness: float) -> float:
    """Brings Tip-Adapter's affinities, which lie in (0, 1], to the size of logits."""
    return 20 * float(np.sqrt(sharpness))


def _candidate(asked: _Asked, name: str) -> _Candidate:
    """The best strength of one kind."""
    if name == ZERO_SHOT:
        return asked.settle(_summed(asked, name, []))
    kinds = [key for key in asked.own if key[0] == name]
    tried = [_summed(asked, name, [(*key, asked.own[key])]) for key in kinds]
    return asked.settle(max(tried, key=asked.plain_likelihood))


def _blended(asked: _Asked, members: Sequence[_Candidate]) -> _Candidate:
    """All linear classifiers together."""
    parts = [part for member in members for part in member.parts if part[0] in KINDS]
    return asked.settle(_summed(asked, BLEND, parts))


def _summed(asked: _Asked, name: str, parts: list[tuple[str, float, Floats]]) -> _Candidate:
    words = asked.words - (asked.zero_shot.logit_bias or 0.0)  # the same for all classes
    logits = np.stack([words, *(held_out for _, _, held_out in parts)])
    weights = stack(logits, asked.labels, asked.share)
    return _Candidate(name, parts, weights[0], weights[1:], np.tensordot(weights, logits, axes=1))


def _standing(candidate: _Candidate, best: _Candidate, asked: _Asked) -> Standing:
    behind = asked.by_image(best.each - candidate.each)
    right = asked.by_image(candidate.right)
    return Standing(
        candidate.name,
        candidate.method(),
        candidate.settings(),
        accuracy=float(right.mean()),
        interval=share_interval(right),
        likelihood=candidate.likelihood,
        behind=float(behind.mean()),
        error=float(behind.std(ddof=1) / np.sqrt(len(behind))),
    )


def _unmeasured(data: Dataset, zero_shot: ZeroShot, only: Sequence[str]) -> Leaderboard:
    """With one image a class: the words trusted as these images say, beside the class means (or
    the kind that was asked for).
    """
    x = data.train.first_views()
    logits = zero_shot.logits(x).numpy().astype(np.float64)[None]
    labels = data.train.labels.numpy()
    (trust,) = stack(logits, labels, np.ones(len(labels)))
    kind = only[0] if len(only) == 1 and only[0] in KINDS else MEANS
    middle = strengths(kind)[len(strengths(kind)) // 2]
    method = Blend(float(trust), (Member(kind, middle, FEW_WEIGHT),))
    if data.others is not None:
        method = replace(method, level=_unmeasured_level(data, zero_shot, method, data.others))
    settings = f"words x {trust:.2g} + {kind} x {FEW_WEIGHT:g}"
    winner = Standing(kind, method, settings)
    return Leaderboard((winner,), winner, len(data.train), 0, 0)


def _unmeasured_level(
    data: Dataset, zero_shot: ZeroShot, method: Blend, others: torch.Tensor
) -> Level:
    """With one image a class: what a further image's logits would be is guessed from below.

    A training image lies closer to its own class than to any other, and so will a further one: in
    place of what it says of its own class stands the most that it says of another.
    """
    x, labels = data.train.first_views(), data.train.labels
    rows = torch.arange(len(labels))
    with torch.no_grad():
        images = replace(method, words=0.0).build(data)(x)
    words = zero_shot.logits(x)
    images[rows, labels] = -torch.inf
    images[rows, labels] = images.max(dim=1).values
    sides = [words, images + method.words * words, replace(zero_shot, text=others).logits(x)]
    known, own, rest = (log_sum(logits.numpy().astype(np.float64)) for logits in sides)
    imagined = imagined_images(data, zero_shot, others, seed=0)
    return _level_between((known, own, rest, np.ones(len(x))), method, data, zero_shot, imagined)


def share_interval(right: Floats) -> tuple[float, float]:
    """Shares of right answers by image [N] -> 95 % interval of their mean (bootstrap)."""
    draws = np.random.default_rng(0).integers(len(right), size=(2000, len(right)))
    low, high = np.quantile(right[draws].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def out_of_fold(recipe: Recipe, data: Dataset) -> OutOfFold:
    """A head's answers for its training images, each by what the other folds taught.

    Raises: DataError where a class has one image only.
    """
    labels, groups = data.train.labels.numpy(), data.train.groups
    numbers = None if groups is None else groups.numpy()
    tuned, asked = [], []
    for train, held_out in folds(labels, numbers, count=FOLDS, seed=recipe.seed):
        part = data.fold(train.tolist(), held_out.tolist())
        run = fit(recipe.replace(stop=None), part, watched=False)
        tuned.append(ranked_logits(run, part, part.val.first_views()))
        asked.append(torch.from_numpy(held_out))
    image = torch.cat(asked)
    words = need_zero_shot(data, "a head").among(data.others)
    return OutOfFold(
        torch.cat(tuned),
        words.logits(data.train.first_views()[image]),
        data.train.labels[image],
        image,
    )
