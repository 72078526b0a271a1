from __future__ import annotations

import math

import pytest

from training import Patience
from training.errors import RecipeError
from training.stopping import StoppingState


def run(rule: Patience, values: list[float]) -> tuple[list[int], StoppingState]:
    """How long it had waited after each value, up to the stop; and the last state."""
    state, waited = StoppingState(), []
    for epoch, value in enumerate(values):
        state = state.after(rule, value, epoch)
        waited.append(state.waited)
        if state.stop is not None:
            break
    return waited, state


@pytest.mark.parametrize(
    ("rule", "values", "waited", "best", "stops"),
    [
        # Proof 7, by hand
        (Patience(patience=2), [3.0, 2.0, 2.5, 2.1, 1.0], [0, 0, 1, 2], (2.0, 1), True),
        (Patience(patience=3), [3.0, 2.0, 2.5, 2.1, 1.0], [0, 0, 1, 2, 0], (1.0, 4), False),
        # an equal value is no improvement
        (Patience(patience=2), [2.0, 2.0, 2.0], [0, 1, 2], (2.0, 0), True),
        # min_delta: 1.95 isn't enough below 2, 1.8 is
        (Patience(patience=5, min_delta=0.1), [2.0, 1.95, 1.8], [0, 1, 0], (1.8, 2), False),
        # many small steps that together pass min_delta count when they do
        (Patience(patience=5, min_delta=0.1), [2.0, 1.94, 1.88], [0, 1, 0], (1.88, 2), False),
        # accuracies rise
        (Patience("val/accuracy", 2), [0.5, 0.6, 0.6, 0.55], [0, 0, 1, 2], (0.6, 1), True),
        (Patience("val/loss", 1, mode="max"), [1.0, 2.0, 1.5], [0, 0, 1], (2.0, 1), True),
        (Patience("val/accuracy", 1, mode="min"), [0.5, 0.4, 0.45], [0, 0, 1], (0.4, 1), True),
        # patience 1 stops at the first worse value
        (Patience(patience=1), [1.0, 1.1], [0, 1], (1.0, 0), True),
    ],
)
def test_hand_written_traces(
    rule: Patience, values: list[float], waited: list[int], best: tuple[float, int], stops: bool
) -> None:
    seen, state = run(rule, values)
    assert seen == waited
    assert (state.best, state.best_epoch) == best
    assert (state.stop is not None) == stops


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_nan_stops_at_once_and_is_never_the_best(broken: float, mode: str) -> None:
    _, state = run(Patience(patience=50, mode=mode), [2.0, broken, 1.0])
    assert state.stop is not None
    assert "epoch 1" in state.stop
    assert (state.best, state.best_epoch) == (2.0, 0)
    _, first = run(Patience(patience=50, mode=mode), [broken])
    assert first.stop is not None
    assert first.best is None


def test_settings_are_checked() -> None:
    for wrong in ({"patience": 0}, {"monitor": "f1"}, {"mode": "most"}, {"min_delta": -1.0}):
        with pytest.raises(RecipeError):
            Patience(**wrong)  # type: ignore[arg-type]
