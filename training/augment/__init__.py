"""Random changes of training batches, and the crops of multi-crop testing."""

from training.augment.images import (
    ColourJitter,
    Crop,
    Cutout,
    Flip,
    Shift,
    crops,
    multicrop_probabilities,
)
from training.augment.mixing import Augment, CutMix, Mixup

__all__ = [
    "Augment",
    "ColourJitter",
    "Crop",
    "CutMix",
    "Cutout",
    "Flip",
    "Mixup",
    "Shift",
    "crops",
    "multicrop_probabilities",
]
