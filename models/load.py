"""`load_encoder`: from a model id to an encoder."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from models.encoder import ImageTower, Vectors
from models.image.backends import BackendShop, find_candidates, precision_class
from models.image.parity import Reference
from models.image.preprocess import Preprocessor
from models.machine import cpu_count
from models.openclip import declare_operators_on_import
from models.sources.cache import Cache
from models.sources.names import ModelSource, identify, resolve
from models.text.paths import DEFAULT_CONTEXT_LENGTH

if TYPE_CHECKING:
    from models.text.side import TextSide


def load_encoder(
    model_id: str,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    cache_dir: Path | str | None = None,
) -> ClipEncoder:
    """Load a model by its id.

    model_id: `everyday`, `pictogram`, `ARCHITECTURE/TAG` of open_clip's table,
        `hf-hub:ORGANISATION/NAME` or `local-dir:FOLDER` in open_clip's local format
    backend: "torch", "openvino" (CPU), or "auto": the quicker, measured at the first load here
    device: "cpu", "cuda", "cuda:1", or "auto": a GPU if torch can use one
    precision: "fp32"; "bf16" (CPUs with bf16 instructions, GPUs); "fp16" (GPUs); "int8" (CPUs); or
        "auto": the quickest but int8. Each is held against torch in fp32 before it may serve.
    cache_dir: where converted models and measurements are kept; None for `~/.cache/clipdex`.
        Downloaded weights lie in the Hugging Face cache.

    The first load of a model converts it, which takes seconds and torch; later ones need neither.
    After a call `import open_clip` works, whatever build of torch is installed.

    Raises: UnknownModelError, ModelUnavailableError, ModelBrokenError; UserError where the options
        contradict each other or the machine; BackendError where no backend passes the guard.
    """
    declare_operators_on_import()
    candidates = find_candidates(backend, device, precision)
    cache = Cache(cache_dir)
    source = resolve(model_id, cache=cache)
    identity = identify(source, cache)
    shop = BackendShop(source, identity, cache)
    tower = shop.open_best(candidates)
    fingerprint = hashlib.sha256(f"{identity} {precision_class(tower.precision)}".encode())
    return ClipEncoder(source, tower, shop.reference, fingerprint=fingerprint.hexdigest()[:32])


# ---- The encoder that `load_encoder` returns: an image tower, and a text tower when it is wanted.


_BLOCK = 64


class ClipEncoder:
    """One model behind `models.Encoder`. Safe to call from many threads.

    The text tower runs on torch and is loaded by the first call that needs it: a process that only
    classifies against a ready index never imports torch.
    """

    def __init__(
        self, source: ModelSource, tower: ImageTower, reference: Reference, *, fingerprint: str
    ) -> None:
        self.model_id = source.model_id
        self.backend, self.device, self.precision = tower.backend, tower.device, tower.precision
        self.dim = reference.dim
        self.image_size = source.preprocess.size
        text_cfg = source.model_cfg["text_cfg"]
        self.context_length: int = text_cfg.get("context_length", DEFAULT_CONTEXT_LENGTH)
        self.logit_scale, self.logit_bias = reference.logit_scale, reference.logit_bias
        self.fingerprint = fingerprint
        self._source, self._tower, self._reference = source, tower, reference
        self._preprocessor = Preprocessor(source.preprocess)
        self._text: TextSide | None = None
        self._text_lock = threading.Lock()

    def preprocess(self, image: Image.Image) -> Vectors:
        """One image as the tower's input: float32 [3, H, W]; alpha is composited on white."""
        return self._preprocessor(image)

    def encode_pixels(self, pixels: Vectors) -> Vectors:
        """float32 [N, 3, H, W] from `preprocess` -> float32 [N, D], rows of unit norm."""
        if pixels.ndim != 4 or pixels.shape[1:] != (3, *self.image_size):
            raise ValueError(
                f"pixels are float32 [N, 3, {self.image_size[0]}, {self.image_size[1]}], not"
                f" {list(pixels.shape)}"
            )
        return self._tower(pixels) if len(pixels) else self._nothing()

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """N images -> float32 [N, D], rows of unit norm.

        They are preprocessed block by block, on as many threads as there are processors, each block
        while the one before is encoded.
        """
        if len(images) == 1:
            return self.encode_pixels(self.preprocess(images[0])[None])
        rows = [self.encode_pixels(block) for block in self._blocks(images)]
        return np.concatenate(rows) if rows else self._nothing()

    def _blocks(self, images: Sequence[Image.Image]) -> Iterator[Vectors]:
        """Preprocessed blocks; the next is begun before one is handed out."""
        with ThreadPoolExecutor(cpu_count()) as pool:
            begun: Iterator[Vectors] | None = None
            for start in range(0, len(images), _BLOCK):
                following = pool.map(self.preprocess, images[start : start + _BLOCK])
                if begun is not None:
                    yield np.stack(list(begun))
                begun = following
            if begun is not None:
                yield np.stack(list(begun))

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """N texts -> float32 [N, D], rows of unit norm. Texts beyond the context are cut.

        The more texts in one call the better: those that begin alike share the work.
        """
        return self._text_side().encode(texts) if texts else self._nothing()

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text before any cut, start and end tokens included."""
        return self._text_side().count(texts) if texts else []

    def unknown_words(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """Of each text, the words that the tokenizer's vocabulary knows nothing of, in order."""
        if all(text.isascii() for text in texts):  # loads no text tower for what is known
            return [() for _ in texts]
        return self._text_side().unknown_words(texts)

    def close(self) -> None:
        """End the runtimes' threads and free the weights; the encoder can't be used afterwards.

        Destroyed by the interpreter's exit instead, in no given order, native threads may still run
        while what they use is gone.
        """
        self._tower.close()
        with self._text_lock:
            self._text = None

    def _nothing(self) -> Vectors:
        return np.empty((0, self.dim), np.float32)

    def _text_side(self) -> TextSide:
        with self._text_lock:
            if self._text is None:
                from models.text.side import TextSide  # imports torch

                self._text = TextSide(
                    self._source, self._reference, device=self.device, precision=self.precision
                )
            return self._text
