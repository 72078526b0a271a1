"""Labelled images: read, checked, split without leaks, encoded."""

from training.data.dataset import Dataset, Retention, Samples, ZeroShot, load_dataset, save_dataset
from training.data.features import CACHE, Views, encode, zero_shot
from training.data.folder import (
    BALANCES,
    ImageFolder,
    LabelledImage,
    balanced_order,
    class_weights,
    pixels,
    read_image,
)
from training.data.splits import folds, near_groups, near_pairs, split, thumbnail

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
