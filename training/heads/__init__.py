"""Heads on an encoder's frozen features."""

from training.heads.blend import Blend, Member
from training.heads.cross_validation import best_by_folds
from training.heads.feature_head import FeatureHead
from training.heads.gda import GDA, GaussianHead
from training.heads.linear import LinearHead, LinearProbe, LogisticProbe
from training.heads.prolip import ProjectionHead, ProLIP
from training.heads.text_head import CosineHead, TextHead
from training.heads.tip_adapter import CacheHead, TipAdapter

__all__ = [
    "GDA",
    "Blend",
    "CacheHead",
    "CosineHead",
    "FeatureHead",
    "GaussianHead",
    "LinearHead",
    "LinearProbe",
    "LogisticProbe",
    "Member",
    "ProLIP",
    "ProjectionHead",
    "TextHead",
    "TipAdapter",
    "best_by_folds",
]
