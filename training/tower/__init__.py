"""Tuning an encoder's image tower itself: LoRA, its last blocks, or all of it."""

from training.tower.cross_validation import Settings
from training.tower.network import TOWER_METHODS, TowerMethod, TowerNetwork, TunedTower
from training.tower.tuning import Tuned, bytes_of, pixel_dataset, scaled, tune_tower

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
