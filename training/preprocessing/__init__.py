"""What happens to images before the network, fitted on the training split alone."""

from training.preprocessing.channel_mean import ChannelMean
from training.preprocessing.channel_order import (
    encoder_prefers_swapped,
    swapped_against,
)
from training.preprocessing.channel_standard import ChannelStandard
from training.preprocessing.fitted import LinearMap, Preprocessing, ShiftScale
from training.preprocessing.grayscale import as_rgb, replicate_channels
from training.preprocessing.mean_image import MeanImage
from training.preprocessing.whitening import Whitening

__all__ = [
    "ChannelMean",
    "ChannelStandard",
    "LinearMap",
    "MeanImage",
    "Preprocessing",
    "ShiftScale",
    "Whitening",
    "as_rgb",
    "encoder_prefers_swapped",
    "replicate_channels",
    "swapped_against",
]
