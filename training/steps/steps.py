"""The six steps of the checklist, one function a step.

Sources: Goodfellow et al. 2016, "Deep Learning", chapter 11 (practical methodology); Bengio 2012,
"Practical recommendations for gradient-based training of deep architectures", arXiv:1206.5533.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from training.data.dataset import Dataset
from training.diagnosis import Verdict
from training.diagnosis.wiring import wiring_findings
from training.errors import TrainingError
from training.loop import Run, StopAfterSteps, StopWhenPerfect
from training.optimisers import AdamW
from training.recipe import Recipe
from training.steps.step import Bench, Status, StepResult, at_constant_rate, steps_per_epoch

INITIAL_LOSS = "1 initial loss"
OVERFIT_TINY = "2 overfit a tiny sample"
LR_SEARCH = "3 learning-rate search"
COARSE_SEARCH = "4 coarse search"
REFINE = "5 refine"
READ_CURVES = "6 read the curves"

TINY_SAMPLE = 20  # samples of step 2
TINY_EPOCHS = 300
LR_STEPS = 100  # of each run of step 3
HALF_DECADES = 4  # of step 3's grid, to each side
COARSE_EPOCHS = 5  # of each run of step 4
COARSE_FACTORS = (1.0, 1 / 3, 3.0)
REFINE_EPOCHS = 15  # of each run of step 5
SEEDS = 3


def initial_loss(bench: Bench) -> StepResult:
    """Step 1: is the first loss what it should be? Trains one step and reads the facts.

    Expected: log C for a network that knows nothing (cross-entropy), the zero-shot loss for a head
    that starts from the text vectors. Regularisers are off. The same look finds a double softmax, a
    frozen head, a cut graph, leaks and more.

    Source: Goodfellow et al. 2016, "Deep Learning", section 11.5 (debugging strategies).
    """
    recipe = bench.recipe.plain().replace(epochs=1)
    try:
        history = bench.train(recipe, callbacks=[StopAfterSteps(1)], without_dropout=True).history
    except TrainingError as exc:
        return StepResult(
            INITIAL_LOSS, Status.FAIL, None, None, "the first step failed", exc.message
        )
    measured = float(history.facts["initial_loss"])
    expected = float(history.facts["expected_loss"])
    origin = "zero-shot" if bench.recipe.method.starts_at_zero_shot else "knowing nothing"
    evidence = f"the loss before the first step, against that of {origin}"
    findings = list(wiring_findings(history))
    if findings:
        said = "; ".join(f"{finding.verdict}: {finding.evidence}" for finding in findings)
        return StepResult(
            INITIAL_LOSS, Status.FAIL, measured, expected, f"{evidence}; {said}", findings[0].advice
        )
    if not bench.recipe.method.trained:
        return StepResult(
            INITIAL_LOSS, Status.PASS, measured, None, "a closed form: solved when built"
        )
    ratio = measured / expected if expected else float("inf")
    if 0.8 <= ratio <= 1.2 or abs(measured - expected) < 0.05:
        return StepResult(INITIAL_LOSS, Status.PASS, measured, expected, evidence)
    if measured < expected:
        return StepResult(
            INITIAL_LOSS,
            Status.WARN,
            measured,
            expected,
            evidence,
            "The network knows more than it should: was it trained before, or does it see the "
            "labels?",
        )
    worse = measured > 1.5 * expected + 0.5
    return StepResult(
        INITIAL_LOSS,
        Status.FAIL if worse else Status.WARN,
        measured,
        expected,
        evidence,
        "The first answers are confident and wrong: make the last layer's first weights smaller.",
    )


def overfit_tiny(bench: Bench) -> StepResult:
    """Step 2: can the network learn a handful of samples by heart?

    With every regulariser off, 100 % on a tiny sample is a must; if not, something is broken, and
    no search will mend it. Three rates are tried, since the one in the recipe may be off.

    Source: Goodfellow et al. 2016, "Deep Learning", section 11.5 ("fit a tiny dataset").
    """
    tiny = tiny_sample(bench.data)
    plain = bench.recipe.plain().replace(batch_size=len(tiny.train), balance="none")
    best, tried = 0.0, []
    for factor in (1.0, 10.0, 0.1):
        lr = plain.optimizer.lr * factor
        recipe = at_constant_rate(plain, epochs=TINY_EPOCHS, lr=lr)
        run = bench.train(recipe, data=tiny, callbacks=[StopWhenPerfect()], without_dropout=True)
        accuracy = run.metrics["train/accuracy"]
        tried.append(f"{accuracy:.0%} after {len(run.history.loss)} steps at {lr:.2g}")
        best = max(best, accuracy)
        if accuracy == 1.0 or bench.time_is_up:
            break
    evidence = f"{len(tiny.train)} samples, regularisers off: {'; '.join(tried)}"
    if best == 1.0:
        return StepResult(OVERFIT_TINY, Status.PASS, best, 1.0, evidence)
    if bench.time_is_up and run.diagnosis.verdict is not Verdict.DIVERGED:
        return StepResult(
            OVERFIT_TINY,
            Status.WARN,
            best,
            1.0,
            f"{evidence}; the time was up",
            "Give a larger budget.",
        )
    return StepResult(
        OVERFIT_TINY,
        Status.FAIL,
        best,
        1.0,
        evidence,
        "The network can't memorise a handful of samples: look for a bug in the loss, the labels "
        "or "
        "the graph before anything else; then for a network that is too small.",
    )


def tiny_sample(data: Dataset) -> Dataset:
    """About 20 training samples, evenly from all classes (one of each, if there are more classes);
    one view of each.
    """
    each = max(1, TINY_SAMPLE // len(data.classes))
    rows = [
        int(row)
        for label in range(len(data.classes))
        for row in torch.nonzero(data.train.labels == label).flatten()[:each]
    ]
    tiny = data.only_train(rows)
    if tiny.train.inputs.ndim != 3:
        return tiny
    plain = type(tiny.train)(tiny.train.inputs[:, :1], tiny.train.labels)
    return Dataset(plain, data.val, data.classes, data.zero_shot)


@dataclass(frozen=True)
class LrPoint:
    """A rate, and the plain training loss after about 100 steps (inf where it diverged)."""

    lr: float
    loss: float


def lr_search(bench: Bench) -> tuple[StepResult, list[LrPoint]]:
    """Step 3: which learning rate brings the loss down?

    Independent runs of about 100 steps on a logarithmic grid (half decades) around the recipe's
    rate, at a constant rate, with the recipe's regularisers on; judged by the plain training loss
    afterwards. The grid is tried from its middle outwards, as long as the time lasts; the points
    are returned in rising order. Where the best rate is at the grid's edge, a better one may lie
    beyond it.

    A range of 1e-1..1e-4 fits heads; full fine-tuning of CLIP wants 1e-5..3e-5. (A rising rate
    within one run is quicker, but its later points inherit the earlier ones' progress or damage.)

    Source: Bengio 2012, arXiv:1206.5533, section 3.1.1 (learning rate).
    """
    epochs = math.ceil(LR_STEPS / steps_per_epoch(bench.recipe, bench.data))
    around = sorted(range(-HALF_DECADES, HALF_DECADES + 1), key=lambda k: (abs(k), k))
    points: list[LrPoint] = []
    initial = math.inf
    for k in around:
        lr = bench.recipe.optimizer.lr * 10 ** (k / 2)
        recipe = at_constant_rate(bench.recipe, epochs=epochs, lr=lr)
        run = bench.train(recipe, callbacks=[StopAfterSteps(LR_STEPS)])
        initial = float(run.history.facts["initial_loss"])
        if bench.time_is_up and len(run.history.loss) < LR_STEPS:
            break  # a run that was cut can't be compared
        loss = run.metrics["train/loss"]
        points.append(LrPoint(lr, loss if math.isfinite(loss) else math.inf))
    points.sort(key=lambda point: point.lr)
    if not points:
        cut = "the time was up before the first run ended"
        return StepResult(
            LR_SEARCH, Status.SKIPPED, None, None, cut, "Give a larger budget."
        ), points
    best = min(points, key=lambda point: point.loss)
    evidence = f"loss after {LR_STEPS} steps, from {initial:.3g}: " + ", ".join(
        f"{point.lr:.2g} -> {point.loss:.3g}" for point in points
    )
    if not best.loss < initial:
        return (
            StepResult(
                LR_SEARCH,
                Status.FAIL,
                best.lr,
                None,
                evidence,
                "No rate brings the loss down: go back to steps 1 and 2.",
            ),
            points,
        )
    if best in (points[0], points[-1]):
        return (
            StepResult(
                LR_SEARCH,
                Status.WARN,
                best.lr,
                None,
                evidence,
                f"The best rate, {best.lr:.2g}, is at the grid's edge: search again around it.",
            ),
            points,
        )
    return StepResult(LR_SEARCH, Status.PASS, best.lr, None, evidence), points


@dataclass(frozen=True)
class Tried:
    """A setting and its validation accuracy and loss."""

    lr: float
    weight_decay: float
    accuracy: float
    loss: float


def coarse_search(bench: Bench, lr: float) -> tuple[StepResult, Recipe | None, list[Tried]]:
    """Step 4: a coarse search over a few settings, for a few epochs each, judged on validation.

    Rates of a third, one and three times the best so far, each with two weight decays: none, and
    1e-2 for decoupled decay or 1e-4 for L2. Returns the recipe with the best setting, None where
    none was tried.

    Source: Bengio 2012, arXiv:1206.5533, section 3.3 (from coarse to fine).
    """
    if not len(bench.data.val):
        skipped = StepResult(
            COARSE_SEARCH,
            Status.SKIPPED,
            None,
            None,
            "there is no validation split",
            "Set one aside.",
        )
        return skipped, None, []
    decay = 1e-2 if isinstance(bench.recipe.optimizer, AdamW) else 1e-4
    tried: list[Tried] = []
    for weight_decay in (decay, 0.0):
        for factor in COARSE_FACTORS:
            setting = _with(bench.recipe, lr * factor, weight_decay)
            run = bench.train(at_constant_rate(setting, epochs=COARSE_EPOCHS))
            if not run.history.epochs:
                break  # the time was up within its first epoch
            row = run.metrics
            tried.append(Tried(lr * factor, weight_decay, row["val/accuracy"], row["val/loss"]))
            if bench.time_is_up:
                break
        if bench.time_is_up:
            break
    if not tried:
        cut = "the time was up before the first run ended"
        return (
            StepResult(COARSE_SEARCH, Status.SKIPPED, None, None, cut, "Give a larger budget."),
            None,
            [],
        )
    best = max(tried, key=lambda t: (t.accuracy, -t.loss))
    evidence = f"{len(tried)} settings, {COARSE_EPOCHS} epochs each: " + ", ".join(
        f"lr {t.lr:.2g} decay {t.weight_decay:.2g} -> {t.accuracy:.1%}" for t in tried
    )
    whole = len(tried) == 2 * len(COARSE_FACTORS)
    result = StepResult(
        COARSE_SEARCH,
        Status.PASS if whole else Status.WARN,
        best.accuracy,
        None,
        evidence,
        "" if whole else "The time was up; a larger budget tries all settings.",
    )
    return result, _with(bench.recipe, best.lr, best.weight_decay), tried


def _with(recipe: Recipe, lr: float, weight_decay: float) -> Recipe:
    return recipe.replace(**{"optimizer.lr": lr, "optimizer.weight_decay": weight_decay})


def refine(bench: Bench, recipe: Recipe) -> tuple[StepResult, list[Run]]:
    """Step 5: the best setting for 10 to 20 epochs at a constant rate, with several seeds.

    The spread between seeds is the noise that any further comparison has to exceed.

    Source: Bouthillier et al. 2021, arXiv:2103.03098 (variance between seeds).
    """
    runs: list[Run] = []
    for offset in range(SEEDS):
        seeded = at_constant_rate(recipe.replace(seed=recipe.seed + offset), epochs=REFINE_EPOCHS)
        run = bench.train(seeded)
        if run.history.epochs:
            runs.append(run)
        if bench.time_is_up:
            break
    if not runs:
        cut = "the time was up before the first epoch ended"
        return StepResult(REFINE, Status.SKIPPED, None, None, cut, "Give a larger budget."), runs
    side = "val" if len(bench.data.val) else "train"
    found = [run.metrics[f"{side}/accuracy"] for run in runs]
    mean = statistics.fmean(found)
    spread = statistics.stdev(found) if len(found) > 1 else 0.0
    epochs = min(len(run.history.epochs) for run in runs)
    evidence = (
        f"{side} accuracy {mean:.1%} +- {spread:.1%} over {len(runs)} seeds, {epochs} epochs: "
        + ", ".join(f"{accuracy:.1%}" for accuracy in found)
    )
    whole = len(runs) == SEEDS and epochs == REFINE_EPOCHS
    return (
        StepResult(
            REFINE,
            Status.PASS if whole else Status.WARN,
            mean,
            None,
            evidence,
            "" if whole else "The time was up; a larger budget runs all seeds to the end.",
        ),
        runs,
    )


def read_curves(runs: Sequence[Run]) -> StepResult:
    """Step 6: `training.diagnosis` of the run with the median validation accuracy."""
    if not runs:
        return StepResult(
            READ_CURVES, Status.SKIPPED, None, None, "there is no finished run to read"
        )
    run = middle(runs)
    side = "val" if "val/accuracy" in run.metrics else "train"
    diagnosis = run.diagnosis
    healthy = diagnosis.verdict is Verdict.HEALTHY
    evidence = "; ".join(f"{f.verdict}: {f.evidence}" for f in diagnosis.findings)
    return StepResult(
        READ_CURVES,
        Status.PASS if healthy else Status.WARN,
        run.metrics[f"{side}/accuracy"],
        None,
        evidence,
        "" if healthy else diagnosis.advice,
    )


def middle(runs: Sequence[Run]) -> Run:
    """The run with the median accuracy."""
    side = "val" if "val/accuracy" in runs[0].metrics else "train"
    ranked = sorted(runs, key=lambda run: run.metrics[f"{side}/accuracy"])
    return ranked[len(ranked) // 2]
