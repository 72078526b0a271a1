"""The scale of the similarities: fitted so that probabilities mean something.

One number, fitted on held-out photographs and on the validation style, where it makes the larger
of the two expected calibration errors least (Guo et al. 2017, sections 2 and 4.2).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from models.prompts import resolve_templates
from models.towers import build_clip, build_tokenizer
from training.pretraining.drawings import VALIDATION_STYLE, load_concepts, load_drawings, plain
from training.pretraining.photographs import load_photographs
from training.pretraining.text import encode_texts

TEMPLATES = "everyday"
CANDIDATES = tuple(range(10, 61))
BINS = 15


def fit_scale(
    state: dict[str, torch.Tensor],
    config: dict[str, Any],
    data: Path,
    vocabulary: Path,
) -> float:
    """The scale for a model.

    state, config: open_clip's, both towers; vocabulary: the folder of the merges
    """
    clip: Any = build_clip(config)
    clip.load_state_dict(state, strict=False)  # the scale itself is not there yet
    size = config["vision_cfg"]["image_size"]
    tokenizer = build_tokenizer(config, vocabulary)
    photographs = load_photographs(data, held_out=True)
    concepts = load_concepts(data / "pictograms")
    drawings = load_drawings(data / "pictograms", [VALIDATION_STYLE], concepts)
    views = torch.stack([_view(image, size) for image in photographs.large])
    lines = (data / "words" / "imagenet.jsonl").read_text(encoding="utf-8").splitlines()
    class_names = [json.loads(line)["name"] for line in lines]
    judged = (
        (
            _encode(clip, views) @ _names(clip, tokenizer, class_names).T,
            torch.tensor(photographs.large_class),
        ),
        (
            torch.cat([_encode(clip, plain(part, size)) for part in drawings.pixels.split(64)])
            @ _names(clip, tokenizer, [concept.name for concept in concepts]).T,
            drawings.concept,
        ),
    )
    return float(
        min(
            CANDIDATES,
            key=lambda scale: max(
                calibration_error(scale * cosines, truth) for cosines, truth in judged
            ),
        )
    )


def calibration_error(logits: torch.Tensor, truth: torch.Tensor) -> float:
    """Expected calibration error of the softmax, in 15 bins of equal width.

    logits: float32 [N, C]; truth: int64 [N]

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, equation 3.
    """
    confidence, best = logits.softmax(dim=1).max(dim=1)
    right = (best == truth).float()
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    gaps = torch.zeros(BINS).index_add_(0, bins, right - confidence)
    return float(gaps.abs().sum() / len(truth))


def _view(image: Image.Image, size: int) -> torch.Tensor:
    """Shortest side to `size`, centre crop: float32 [3, size, size] in [0, 1]."""
    share = size / min(image.size)
    width, height = (max(size, round(side * share)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    crop = resized.crop((left, top, left + size, top + size))
    return torch.from_numpy(np.array(crop)).permute(2, 0, 1).float() / 255


@torch.inference_mode()
def _encode(clip: Any, views: torch.Tensor) -> torch.Tensor:
    parts = [clip.encode_image((part * 255 - 127) / 128) for part in views.split(64)]
    return F.normalize(torch.cat(parts), dim=1)


def _names(clip: Any, tokenizer: Any, names: list[str]) -> torch.Tensor:
    wordings = [
        encode_texts(clip, tokenizer, [template.replace("{}", name) for name in names])
        for template in resolve_templates(TEMPLATES).texts
    ]
    return F.normalize(torch.stack(wordings).sum(dim=0), dim=1)
