"""Tuning an encoder's image tower itself: LoRA, its last blocks, or all of it."""

from training.tower.crossfit import Settings
from training.tower.method import TOWER_METHODS, TowerMethod, TunedTower
from training.tower.network import TowerNetwork
from training.tower.pixels import bytes_of, pixel_dataset, scaled
from training.tower.tuning import Tuned, tune_tower

__all__ = [
    "TOWER_METHODS",
    "Settings",
    "TowerMethod",
    "TowerNetwork",
    "Tuned",
    "TunedTower",
    "bytes_of",
    "pixel_dataset",
    "scaled",
    "tune_tower",
]
