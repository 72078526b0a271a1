"""Random changes of training batches, and the crops of multi-crop testing."""

from training.augment.batch import Augment
from training.augment.cutmix import CutMix
from training.augment.cutout import Cutout
from training.augment.geometry import Crop, Flip, Shift
from training.augment.jitter import ColourJitter
from training.augment.mixup import Mixup
from training.augment.multicrop import crops, multicrop_probabilities

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
