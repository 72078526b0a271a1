from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks.strategy_proof import HEALTHY_SEEDS, PLANTED, Planted, healthy, main
from training import History, Verdict, diagnose
from training.diagnosis import ADVICE

FACTS: dict[str, Any] = {
    "classes": 10,
    "train_count": 1000,
    "val_count": 500,
    "majority": 0.1,
    "expected_loss": 2.303,
    "uninformed_loss": 2.303,
    "initial_loss": 2.31,
    "initial_train_accuracy": 0.1,
    "initial_val_accuracy": 0.1,
    "rows_sum_to_one": False,
    "leaked": 0,
    "channels_swapped": False,
    "standardised_twice": False,
    "signal": None,
    "trainable": ["w", "b"],
    "head": "head",
    "head_frozen": False,
    "without_gradient": [],
}
EPOCHS = 20


def history(
    *,
    loss: list[float],
    val_loss: list[float] | None = None,
    accuracy: float = 0.9,
    val_accuracy: float = 0.88,
    lr: list[float] | None = None,
    steps: list[float] | None = None,
    **facts: Any,
) -> History:
    """A hand-drawn run: one step an epoch."""
    val_loss = [value + 0.05 for value in loss] if val_loss is None else val_loss
    rates = lr or [0.1 * (1 + math.cos(math.pi * e / len(loss))) / 2 for e in range(len(loss))]
    rows = [
        {
            "train/loss": a,
            "train/accuracy": accuracy,
            "val/loss": b,
            "val/accuracy": val_accuracy,
            "lr": r,
        }
        for a, b, r in zip(loss, val_loss, rates, strict=True)
    ]
    return History(
        facts={**FACTS, **facts},
        loss=steps or loss,
        lr=rates,
        gradient=[1.0] * len(loss),
        epochs=rows,
        epoch_ends=list(range(1, len(loss) + 1)),
    )


def falling(low: float = 0.3, pace: float = 0.4, epochs: int = EPOCHS) -> list[float]:
    return [low + (2.3 - low) * math.exp(-pace * (e + 1)) for e in range(epochs)]


FLAT_RATE = [0.1] * EPOCHS
DRAWN: dict[Verdict, History] = {
    Verdict.HEALTHY: history(loss=falling()),
    Verdict.DIVERGED: history(loss=[*falling()[:10], *[5.0 + e for e in range(10)]]),
    Verdict.LABEL_BUG: history(
        loss=falling(0.01),
        val_loss=[2.3 + 0.1 * e for e in range(EPOCHS)],
        accuracy=1.0,
        val_accuracy=0.11,
    ),
    Verdict.BAD_INIT: history(loss=falling(), initial_loss=25.0),
    Verdict.DECAYED_TOO_EARLY: history(
        loss=[2.3 - 0.15 * (e + 1) for e in range(6)] + [1.38 - 0.001 * e for e in range(14)],
        lr=[0.1] * 6 + [0.001] * 14,
        accuracy=0.5,
        val_accuracy=0.48,
    ),
    Verdict.OVERFIT: history(
        loss=falling(0.01),
        val_loss=[*falling(1.0)[:8], *[1.1 + 0.1 * e for e in range(12)]],
        accuracy=1.0,
        val_accuracy=0.65,
    ),
    Verdict.STILL_IMPROVING: history(
        loss=[2.3 - 0.08 * (e + 1) for e in range(EPOCHS)],
        lr=FLAT_RATE,
        accuracy=0.75,
        val_accuracy=0.72,
    ),
    Verdict.PLATEAU: history(
        loss=falling(0.8, 1.0), lr=FLAT_RATE, accuracy=0.75, val_accuracy=0.72
    ),
    Verdict.UNDERFIT: history(loss=falling(1.6, 1.0), accuracy=0.4, val_accuracy=0.39),
}


@pytest.mark.parametrize("verdict", DRAWN)
def test_hand_drawn_curves(verdict: Verdict) -> None:
    found = diagnose(DRAWN[verdict])
    assert found.verdict is verdict, str(found)
    assert found.evidence
    assert found.advice == ADVICE[verdict]


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        ({"leaked": 50}, Verdict.LEAK),
        ({"channels_swapped": True}, Verdict.CHANNEL_ORDER),
        ({"standardised_twice": True}, Verdict.DOUBLE_NORMALISATION),
        ({"rows_sum_to_one": True}, Verdict.DOUBLE_SOFTMAX),
        ({"without_gradient": ["w"]}, Verdict.DETACHED_GRAPH),
        ({"head_frozen": True}, Verdict.FROZEN_HEAD),
        ({"signal": "the signal vanishes at layer 7"}, Verdict.BAD_INIT),
        ({"initial_val_accuracy": 0.7, "initial_train_accuracy": 0.1}, Verdict.LABEL_BUG),
    ],
)
def test_facts_speak_for_themselves(facts: dict[str, Any], verdict: Verdict) -> None:
    found = diagnose(history(loss=falling(), **facts))
    assert [finding.verdict for finding in found.findings] == [verdict]


def test_close_together_is_underfit_only_when_both_are_low() -> None:
    """The notes leave that out: 97 % and 96 % is no reason for a bigger model."""
    high = diagnose(history(loss=falling(0.1), accuracy=0.97, val_accuracy=0.96))
    assert high.verdict is Verdict.HEALTHY
    low = diagnose(history(loss=falling(1.9, 1.0), accuracy=0.3, val_accuracy=0.29))
    assert low.verdict is Verdict.UNDERFIT


def test_a_stray_duplicate_is_no_leak_and_a_perfect_plateau_is_fine() -> None:
    assert diagnose(history(loss=falling(), leaked=2)).verdict is Verdict.HEALTHY
    perfect = history(loss=falling(0.0, 2.0), lr=FLAT_RATE, accuracy=1.0, val_accuracy=0.99)
    assert diagnose(perfect).verdict is Verdict.HEALTHY


def test_nan_anywhere_is_diverged() -> None:
    for broken in (math.nan, math.inf):
        found = diagnose(history(loss=falling(), steps=[2.3, broken]))
        assert found.verdict is Verdict.DIVERGED


def test_it_is_a_pure_function_of_the_history() -> None:
    for drawn in DRAWN.values():
        text = drawn.to_json()
        assert diagnose(drawn) == diagnose(History.from_json(text))
        assert drawn.to_json() == text


def test_an_empty_history_and_one_without_validation() -> None:
    assert diagnose(History()).verdict is Verdict.HEALTHY
    short = history(loss=[2.0], val_loss=[2.1])
    assert diagnose(short).verdict is Verdict.HEALTHY
    alone = history(loss=falling(), val_count=0, initial_val_accuracy=None)
    for row in alone.epochs:
        del row["val/loss"], row["val/accuracy"]
    assert diagnose(alone).verdict is Verdict.HEALTHY
    assert diagnose(alone).evidence


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.bug)
@pytest.mark.parametrize("seed", [0, 1])
def test_each_planted_bug_gets_its_verdict(planted: Planted, seed: int) -> None:
    """Proof 9."""
    assert planted.run(seed) is planted.expected


@pytest.mark.parametrize("seed", range(HEALTHY_SEEDS))
def test_healthy_seeds_get_none(seed: int) -> None:
    """Proof 9."""
    assert healthy(seed) is Verdict.HEALTHY


def test_the_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import benchmarks.strategy_proof as proof

    monkeypatch.setattr(proof, "PLANTED", PLANTED[2:4])
    monkeypatch.setattr(proof, "HEALTHY_SEEDS", 1)
    assert main() == 0
    printed = capsys.readouterr().out
    assert "double softmax" in printed
    assert "1 of 1 HEALTHY" in printed
    wrong = Planted("no bug at all", Verdict.LEAK, healthy)
    monkeypatch.setattr(proof, "PLANTED", (wrong,))
    assert main() == 1
    assert "<-- wrong" in capsys.readouterr().out
