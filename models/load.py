"""`load_encoder`: from a model id to an encoder."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from models.encoder import Encoder, Vectors
from models.openclip import build_clip, load_weights
from models.preprocess import Preprocessor
from models.sources import ModelSource, resolve
from models.tokenizers import DEFAULT_CONTEXT_LENGTH, build_tokenizer, count_tokens

_BATCH = 64


def load_encoder(
    model_id: str,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    cache_dir: Path | None = None,
) -> Encoder:
    """Load a model by its id.

    Raises: UnknownModelError, ModelUnavailableError, ModelBrokenError, BackendError.
    """
    return TorchEncoder(resolve(model_id, cache_dir=cache_dir))


class TorchEncoder:
    """A model run by torch, in fp32, on the CPU."""

    def __init__(self, source: ModelSource) -> None:
        self.model_id = source.model_id
        self.backend, self.device, self.precision = "torch", "cpu", "fp32"
        self._module = build_clip(source.model_cfg)
        load_weights(self._module, source.weights)
        self._tokenizer = build_tokenizer(source.model_cfg, source.folder)
        self._preprocessor = Preprocessor(source.preprocess)
        self._lock = threading.Lock()
        self.dim: int = source.model_cfg["embed_dim"]
        self.image_size = source.preprocess.size
        text_cfg = source.model_cfg["text_cfg"]
        self.context_length: int = text_cfg.get("context_length", DEFAULT_CONTEXT_LENGTH)
        state = self._module.state_dict()
        self.logit_scale = float(state["logit_scale"].exp())
        self.logit_bias: float | None = None
        if "logit_bias" in state:
            self.logit_bias = float(state["logit_bias"])
        digest = hashlib.sha256(source.weights.read_bytes())
        digest.update(json.dumps([source.model_cfg, source.preprocess.as_dict()]).encode())
        self.fingerprint = digest.hexdigest()

    def preprocess(self, image: Image.Image) -> Vectors:
        """One image -> float32 [3, H, W]."""
        return self._preprocessor(image)

    @torch.inference_mode()
    def encode_pixels(self, pixels: Vectors) -> Vectors:
        """float32 [N, 3, H, W] -> float32 [N, D], rows of unit norm."""
        rows = [np.empty((0, self.dim), np.float32)]
        with self._lock:
            for start in range(0, len(pixels), _BATCH):
                batch = torch.from_numpy(pixels[start : start + _BATCH])
                rows.append(self._module.encode_image(batch, normalize=True).numpy())  # type: ignore[operator]
        return np.concatenate(rows)

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """N images -> float32 [N, D], rows of unit norm."""
        if not images:
            return np.empty((0, self.dim), np.float32)
        return self.encode_pixels(np.stack([self.preprocess(image) for image in images]))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """N texts -> float32 [N, D], rows of unit norm."""
        rows = [np.empty((0, self.dim), np.float32)]
        with self._lock:
            for start in range(0, len(texts), _BATCH):
                tokens = self._tokenizer(list(texts[start : start + _BATCH]))
                rows.append(self._module.encode_text(tokens, normalize=True).numpy())  # type: ignore[operator]
        return np.concatenate(rows)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text before any cut."""
        return count_tokens(self._tokenizer, texts)
