"""Which way a text tower can be computed, told by its config alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

DEFAULT_CONTEXT_LENGTH = 77
TextPath = Literal["tree", "trimmed", "plain"]
# What makes open_clip build another attention block than the one the prefix tree computes.
_CUSTOM_BLOCK = (
    "qk_norm",
    "scaled_cosine_attn",
    "scale_heads",
    "scale_attn_inner",
    "scale_attn",
    "scale_fc",
)


def text_path(model_cfg: Mapping[str, Any]) -> TextPath:
    """How to compute a model's texts.

    "tree": causal, pooled at the end-of-text token, plain attention blocks: each distinct prefix
        of all texts is computed once.
    "trimmed": causal and pooled so, but with blocks of another kind: sorted by length, and no
        token is computed beyond the longest end-of-text token of a batch.
    "plain": everything else, as open_clip does it. Attention in both directions sees the padding
        (SigLIP, MobileCLIP-S1), the last position is behind it (SigLIP's pooling), and a class
        token is appended behind the full context (CoCa). Hugging Face towers (RoBERTa, T5) mask
        and pool by themselves.
    """
    text = model_cfg["text_cfg"]
    causal = not text.get("no_causal_mask", False)
    pooled_at_end = text.get("pool_type", "argmax") in ("argmax", "eos")
    if "hf_model_name" in text or text.get("embed_cls") or not causal or not pooled_at_end:
        return "plain"
    custom = any(text.get(name) for name in _CUSTOM_BLOCK)
    block = text.get("block_type") or ("custom" if custom else "default")
    return "tree" if block == "default" else "trimmed"
