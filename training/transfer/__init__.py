"""Transfer learning: what may change of a pretrained network, and when."""

from training.transfer.advice import Advice, advise
from training.transfer.feature_extraction import FeatureExtraction
from training.transfer.full_finetune import FullFineTune
from training.transfer.lora import LoRA, lora_targets, merge
from training.transfer.partial_unfreeze import PartialUnfreeze
from training.transfer.stages import blocks_and_head, settle_frozen
from training.transfer.transfer import Transfer
from training.transfer.weight_average import AlphaScore, AlphaSweep, interpolate, sweep_alpha

__all__ = [
    "Advice",
    "AlphaScore",
    "AlphaSweep",
    "FeatureExtraction",
    "FullFineTune",
    "LoRA",
    "PartialUnfreeze",
    "Transfer",
    "advise",
    "blocks_and_head",
    "interpolate",
    "lora_targets",
    "merge",
    "settle_frozen",
    "sweep_alpha",
]
