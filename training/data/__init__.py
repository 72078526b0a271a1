"""Labelled images: read, checked, split without leaks, encoded."""

from training.data.dataset import Dataset, Retention, Samples, ZeroShot
from training.data.duplicates import near_groups, near_pairs, thumbnail
from training.data.features import CACHE, Views, encode, zero_shot
from training.data.folder import ImageFolder, LabelledImage, read_image
from training.data.imbalance import BALANCES, balanced_order, class_weights
from training.data.pixels import pixels
from training.data.splits import folds, split
from training.data.storage import load_dataset, save_dataset

__all__ = [
    "BALANCES",
    "CACHE",
    "Dataset",
    "ImageFolder",
    "LabelledImage",
    "Retention",
    "Samples",
    "Views",
    "ZeroShot",
    "balanced_order",
    "class_weights",
    "encode",
    "folds",
    "load_dataset",
    "near_groups",
    "near_pairs",
    "pixels",
    "read_image",
    "save_dataset",
    "split",
    "thumbnail",
    "zero_shot",
]
