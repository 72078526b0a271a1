from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR

from training import AdamW, Constant, Cosine, InverseSqrt, Linear, Step
from training.errors import RecipeError
from training.schedules import Schedule

T, PEAK = 40, 0.1


def rates(schedule: Schedule, steps: int, *, epochs: int = T, per_epoch: int = 1) -> list[float]:
    """The rate of each step, as torch's scheduler hands it to the optimiser."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler = schedule.scheduler(optimizer, epochs=epochs, steps_per_epoch=per_epoch)
    seen = []
    for _ in range(steps):
        seen.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return seen


FORMULAS = {
    "constant": (Constant(), lambda t: 1.0),
    "step": (Step(gamma=0.1, at=(0.25, 0.5)), lambda t: 0.1 ** ((t >= 10) + (t >= 20))),
    "cosine": (Cosine(), lambda t: (1 + math.cos(math.pi * t / T)) / 2),
    "cosine with a floor": (
        Cosine(floor=0.1),
        lambda t: 0.1 + 0.9 * (1 + math.cos(math.pi * t / T)) / 2,
    ),
    "linear": (Linear(), lambda t: 1 - t / T),
    "linear with a floor": (Linear(floor=0.2), lambda t: 1 - 0.8 * t / T),
    "inverse square root": (InverseSqrt(), lambda t: 1 / math.sqrt(t + 1)),
    "inverse square root, scaled": (InverseSqrt(scale=4), lambda t: 1 / math.sqrt(1 + t / 4)),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_every_step_follows_its_formula_and_the_end_holds(name: str) -> None:
    """Proof 2: t = 0 .. T, and T + 1, T + 2 keep what T has."""
    schedule, formula = FORMULAS[name]
    expected = [PEAK * formula(min(t, T)) for t in range(T + 3)]
    assert rates(schedule, T + 3) == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("kind", [Constant, Step, Cosine, Linear, InverseSqrt])
def test_warmup_rises_to_the_peak_and_hands_over_at_the_seam(kind: type[Schedule]) -> None:
    """Proof 2: W = 10: t = 0 is a tenth, t = 9 the peak, t = 10 the shape's start."""
    seen = rates(kind(warmup=0.25), T)
    assert seen[:10] == pytest.approx([PEAK * (t + 1) / 10 for t in range(10)])
    plain = [PEAK * kind().shape(t, T - 10) for t in range(T - 10)]
    assert seen[10:] == pytest.approx(plain, rel=1e-12)
    assert seen[9] == pytest.approx(PEAK)
    assert seen[10] == pytest.approx(PEAK)


def test_the_shapes_equal_torchs_own_where_those_apply() -> None:
    def torchs(make: object) -> list[float]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=PEAK)
        scheduler = make(optimizer)  # type: ignore[operator]
        seen = []
        for _ in range(T):
            seen.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            scheduler.step()
        return seen

    assert rates(Cosine(), T) == pytest.approx(torchs(lambda o: CosineAnnealingLR(o, T)))
    assert rates(Linear(), T) == pytest.approx(torchs(lambda o: LinearLR(o, 1.0, 0.0, T)))
    assert rates(Step(at=(0.25, 0.5)), T) == pytest.approx(
        torchs(lambda o: MultiStepLR(o, [10, 20]))
    )


def test_per_epoch_changes_between_epochs_only() -> None:
    by_step = rates(Linear(), 12, epochs=4, per_epoch=3)
    by_epoch = rates(Linear(per="epoch"), 12, epochs=4, per_epoch=3)
    assert by_step == pytest.approx([PEAK * (1 - t / 12) for t in range(12)])
    assert by_epoch == pytest.approx([PEAK * (1 - t // 3 / 4) for t in range(12)])


def test_groups_keep_their_own_rates() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = AdamW(lr=PEAK).build(network, lr_shares={"0.weight": 0.1, "0.bias": 0.1})
    scheduler = Cosine(floor=0.5).scheduler(optimizer, epochs=4, steps_per_epoch=1)
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    found = sorted({round(float(group["lr"]), 12) for group in optimizer.param_groups})
    assert found == pytest.approx([PEAK * 0.1 * 0.5, PEAK * 0.5])


def test_one_step_runs_do_not_divide_by_zero() -> None:
    for kind in (Constant, Step, Cosine, Linear, InverseSqrt):
        assert rates(kind(warmup=0.9), 2, epochs=1) == pytest.approx([PEAK, PEAK])


@pytest.mark.parametrize(
    "wrong", [{"warmup": 1.0}, {"warmup": -0.1}, {"per": "hour"}, {"floor": 2.0}]
)
def test_settings_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        Cosine(**wrong)  # type: ignore[arg-type]
