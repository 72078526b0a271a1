"""The names of the fine-tuning methods, for those who check them without importing torch."""

from __future__ import annotations

from typing import Literal, get_args

AUTO = "auto"
# their settings are decided by folds, see training.judging.leaderboard
MEASURED_NAMES = ("class-means", "gda", "regression", "anchored", "tip-adapter", "blend")
HeadMethodName = Literal[
    "head",
    "gda",
    "tip-adapter",
    "tip-adapter-f",
    "linear-probe",
    "logistic-probe",
    "prolip",
    "class-means",
    "regression",
    "anchored",
    "blend",
]
TowerMethodName = Literal["lora", "partial", "full"]
MethodName = Literal["auto", HeadMethodName, TowerMethodName]
HEAD_METHOD_NAMES: tuple[str, ...] = get_args(HeadMethodName)
TOWER_METHOD_NAMES: tuple[str, ...] = get_args(TowerMethodName)
METHOD_NAMES = (*HEAD_METHOD_NAMES, *TOWER_METHOD_NAMES, AUTO)
