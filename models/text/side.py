"""Texts to vectors: tokenizer and text tower of one model, held against the reference."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import numpy as np
import torch

from models.encoder import Vectors
from models.errors import BackendError
from models.image.parity import GOLDEN_TEXTS, MIN_COSINE, Reference, min_cosine
from models.image.torch_runtime import DTYPES, limit_threads
from models.machine import cpu_has_bf16
from models.sources.names import ModelSource
from models.text.tokens import build_tokenizer, count_tokens, unknown_words
from models.text.tower import TextTower
from models.towers import load_text_module

logger = logging.getLogger(__name__)


class TextSide:
    """A model's tokenizer and text tower."""

    def __init__(
        self, source: ModelSource, reference: Reference, *, device: str, precision: str
    ) -> None:
        """precision: the image tower's. Texts are never int8: bf16 is as quick for them.

        Raises: ModelBrokenError, ModelUnavailableError.
        """
        if device == "cpu":
            limit_threads()
        self._tokenizer = build_tokenizer(source.model_cfg, source.folder)
        self._source, self._device = source, torch.device(device)
        self._lock = threading.Lock()
        wanted = precision
        if precision == "int8":
            wanted = "bf16" if cpu_has_bf16() else "fp32"
        for candidate in dict.fromkeys((wanted, "fp32")):
            self._tower = self._load(candidate)
            cosine = min_cosine(self.encode(GOLDEN_TEXTS), reference.text_vectors)
            if cosine >= MIN_COSINE[candidate]:
                return
            logger.warning(
                "%s: texts in %s refused: cosine %.5f to the reference",
                source.model_id,
                candidate,
                cosine,
            )
        raise BackendError(
            f"{source.model_id}: this machine's torch computes other text vectors than the"
            " reference in the cache; delete the cache folder and load the model again"
        )

    def encode(self, texts: Sequence[str]) -> Vectors:
        """N texts -> float32 [N, D], rows of unit norm."""
        with self._lock:
            tokens = self._tokenizer(list(texts)).numpy()
            return self._tower(tokens.astype(np.int64))

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text before any cut."""
        return count_tokens(self._tokenizer, texts)

    def unknown_words(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """Of each text, the words that the vocabulary knows nothing of."""
        return unknown_words(self._tokenizer, texts)

    def _load(self, precision: str) -> TextTower:
        return TextTower(
            load_text_module(self._source),
            self._source.model_cfg,
            device=self._device,
            dtype=DTYPES[precision],
        )
