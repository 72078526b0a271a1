"""What the embedded model `pictogram` is: its towers, its preprocessing, its vocabulary."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import torch

from models.towers import default_merges

EMBED_DIM = 256
TEXTS_AT_ONCE = 64
MERGES = 6000  # byte-pair merges kept of CLIP's 48,894: 6.5k tokens instead of 49k
MODEL_CONFIG = {
    "embed_dim": EMBED_DIM,
    "vision_cfg": {
        "image_size": 64,
        "timm_model_name": "resnet10t",
        "timm_model_pretrained": False,
        "timm_pool": "rot_attn",
        "timm_proj": "",
    },
    "text_cfg": {
        "context_length": 32,
        "vocab_size": 256 + 256 + MERGES + 2,
        "width": 128,
        "heads": 4,
        "layers": 4,
        "tokenizer_kwargs": {"bpe_path": "merges.txt.gz"},
    },
}
PREPROCESS_CONFIG = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "longest",
    "fill_color": 255,
}


def encode_trimmed(clip: Any, tokens: torch.Tensor) -> torch.Tensor:
    """encode_text, in parts of similar length without their padding: about half the work.

    The tower is causal, so what stands after a text's end changes nothing.
    tokens: int64 [B, context]; returns [B, D], not normalised.
    """
    ends = tokens.argmax(dim=1)  # the end-of-text token has the highest id
    order = ends.argsort()
    parts = [
        _encode_part(clip, tokens[rows, : int(ends[rows[-1]]) + 1], ends[rows])
        for rows in order.split(TEXTS_AT_ONCE)
    ]
    return torch.cat(parts)[order.argsort()]


def _encode_part(clip: Any, tokens: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    length = tokens.shape[1]
    x = clip.token_embedding(tokens) + clip.positional_embedding[:length]  # (B, L, width)
    x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])
    last = clip.ln_final(x)[torch.arange(len(x), device=x.device), ends]
    projected: torch.Tensor = last @ clip.text_projection
    return projected


def write_merges(path: Path) -> None:
    """The first merges of CLIP's byte-pair vocabulary, in SimpleTokenizer's format."""
    header, *merges = default_merges()
    text = "\n".join([header, *merges[:MERGES]])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as file:
        file.write(text.encode())
