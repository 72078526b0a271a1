"""The training-strategy toolkit: recipes, the loop, the checklist, heads on frozen features.

    data = ImageFolder("shots/", val=0.2, seed=0)
    feats = encode(encoder, data, views=4)
    run = fit(Recipe(epochs=50), feats)
    print(run.diagnosis)

A name's module is imported when the name is first used: a service that only lists adapters must not
pay for importing torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.augment import ColourJitter, Crop, CutMix, Cutout, Flip, Mixup, Shift
    from training.data import (
        Dataset,
        ImageFolder,
        Retention,
        Samples,
        Views,
        ZeroShot,
        encode,
        pixels,
        zero_shot,
    )
    from training.diagnosis import Diagnosis, Finding, Verdict, diagnose
    from training.heads import GDA, LinearProbe, LogisticProbe, ProLIP, TextHead, TipAdapter
    from training.history import History
    from training.initialisation import He, SmallRandom, Xavier, Zero
    from training.loop import Callback, ProgressBar, Run, RunView, fit
    from training.losses import (
        AbsoluteError,
        BinaryCrossEntropy,
        CrossEntropy,
        ElasticNet,
        SquaredError,
    )
    from training.networks import MLP, GivenModel, SmallCNN
    from training.optimisers import SGD, Adam, AdamW, Momentum, RMSprop
    from training.preprocessing import ChannelMean, ChannelStandard, MeanImage, Whitening
    from training.recipe import Recipe
    from training.schedules import Constant, Cosine, InverseSqrt, Linear, Step
    from training.search import Choice, LogUniform, Trial, Tuning, Uniform, Whole, tune
    from training.steps import ChecklistReport, Status, StepResult, checklist
    from training.stopping import Patience
    from training.transfer import (
        Advice,
        FeatureExtraction,
        FullFineTune,
        LoRA,
        PartialUnfreeze,
        advise,
    )

__all__ = [  # noqa: RUF022 (sorted without regard to case)
    "AbsoluteError",
    "Adam",
    "AdamW",
    "Advice",
    "advise",
    "BinaryCrossEntropy",
    "Callback",
    "ChannelMean",
    "ChannelStandard",
    "checklist",
    "ChecklistReport",
    "Choice",
    "ColourJitter",
    "Constant",
    "Cosine",
    "Crop",
    "CrossEntropy",
    "CutMix",
    "Cutout",
    "Dataset",
    "diagnose",
    "Diagnosis",
    "ElasticNet",
    "encode",
    "FeatureExtraction",
    "Finding",
    "fit",
    "Flip",
    "FullFineTune",
    "GDA",
    "GivenModel",
    "He",
    "History",
    "ImageFolder",
    "InverseSqrt",
    "Linear",
    "LinearProbe",
    "LogisticProbe",
    "LogUniform",
    "LoRA",
    "MeanImage",
    "Mixup",
    "MLP",
    "Momentum",
    "PartialUnfreeze",
    "Patience",
    "pixels",
    "ProgressBar",
    "ProLIP",
    "Recipe",
    "Retention",
    "RMSprop",
    "Run",
    "RunView",
    "Samples",
    "SGD",
    "Shift",
    "SmallCNN",
    "SmallRandom",
    "SquaredError",
    "Status",
    "Step",
    "StepResult",
    "TextHead",
    "TipAdapter",
    "Trial",
    "tune",
    "Tuning",
    "Uniform",
    "Verdict",
    "Views",
    "Whitening",
    "Whole",
    "Xavier",
    "Zero",
    "zero_shot",
    "ZeroShot",
]

_MODULES = {
    "training.augment": (
        "ColourJitter",
        "Crop",
        "CutMix",
        "Cutout",
        "Flip",
        "Mixup",
        "Shift",
    ),
    "training.data": (
        "Dataset",
        "ImageFolder",
        "Retention",
        "Samples",
        "Views",
        "ZeroShot",
        "encode",
        "pixels",
        "zero_shot",
    ),
    "training.diagnosis": (
        "Diagnosis",
        "Finding",
        "Verdict",
        "diagnose",
    ),
    "training.heads": (
        "GDA",
        "LinearProbe",
        "LogisticProbe",
        "ProLIP",
        "TextHead",
        "TipAdapter",
    ),
    "training.history": ("History",),
    "training.initialisation": (
        "He",
        "SmallRandom",
        "Xavier",
        "Zero",
    ),
    "training.loop": (
        "Callback",
        "ProgressBar",
        "Run",
        "RunView",
        "fit",
    ),
    "training.losses": (
        "AbsoluteError",
        "BinaryCrossEntropy",
        "CrossEntropy",
        "ElasticNet",
        "SquaredError",
    ),
    "training.networks": (
        "MLP",
        "GivenModel",
        "SmallCNN",
    ),
    "training.optimisers": (
        "SGD",
        "Adam",
        "AdamW",
        "Momentum",
        "RMSprop",
    ),
    "training.preprocessing": (
        "ChannelMean",
        "ChannelStandard",
        "MeanImage",
        "Whitening",
    ),
    "training.recipe": ("Recipe",),
    "training.schedules": (
        "Constant",
        "Cosine",
        "InverseSqrt",
        "Linear",
        "Step",
    ),
    "training.search": (
        "Choice",
        "LogUniform",
        "Trial",
        "Tuning",
        "Uniform",
        "Whole",
        "tune",
    ),
    "training.steps": (
        "ChecklistReport",
        "Status",
        "StepResult",
        "checklist",
    ),
    "training.stopping": ("Patience",),
    "training.transfer": (
        "Advice",
        "FeatureExtraction",
        "FullFineTune",
        "LoRA",
        "PartialUnfreeze",
        "advise",
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
