"""The sides of `benchmarks.encoder`: open_clip as most services call it, and ours."""

from __future__ import annotations

import io
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models import decode_image, load_encoder

MOST_AT_ONCE = 64
LARGE_PIXELS = 12_000_000


class Eager:
    """open_clip by its own functions, the way most services call it."""

    def __init__(self, model_id: str, files: list[str]) -> None:
        import torch

        from models.openclip import import_open_clip

        self._torch = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        module, _, self._transform = import_open_clip().create_model_and_transforms(model_id)
        self._module = module.eval().to(self._device)
        self._data = [Path(file).read_bytes() for file in files]
        self._pixels = _random_pixels(224)

    def device(self) -> str:
        return self._device

    def encoder(self, batch: int, seconds: float) -> list[float]:
        """Seconds of each run on `batch` images."""
        pixels = self._torch.from_numpy(self._pixels[:batch])
        return _timed(lambda: self._encode(pixels), seconds)

    def from_files(self, batch: int, seconds: float) -> list[float]:
        """The same from the files' bytes on."""
        data = _repeated(self._data, batch)

        def run() -> None:
            images = [Image.open(io.BytesIO(item)) for item in data]
            self._encode(self._torch.stack([self._transform(image) for image in images]))

        return _timed(run, seconds)

    def flops(self) -> float:
        """Floating-point operations of one image: twice its multiplications."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self._encode(self._torch.zeros(1, 3, 224, 224))
        return float(counter.get_total_flops())

    def ceiling(self, precision: str, seconds: float) -> float:
        """Operations a second of a large matrix product, the best of several."""
        torch = self._torch
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        size = 8192 if self._device == "cuda" else 2048
        a, b = (torch.randn(size, size, device=self._device).to(dtype) for _ in range(2))

        def run() -> None:
            a @ b
            self._wait()

        with torch.inference_mode():
            return 2 * size**3 / min(_timed(run, seconds))

    def _encode(self, pixels: Any) -> Any:
        with self._torch.inference_mode():
            vectors = self._module.encode_image(pixels.to(self._device), normalize=True)
        return vectors.cpu().numpy()

    def _wait(self) -> None:
        if self._device == "cuda":
            self._torch.cuda.synchronize()


class Ours:
    """An encoder of this project."""

    def __init__(
        self, model_id: str, files: list[str], backend: str, precision: str, cache: str
    ) -> None:
        began = time.perf_counter()
        self._encoder = load_encoder(
            model_id, backend=backend, precision=precision, cache_dir=Path(cache)
        )
        self._load_seconds = time.perf_counter() - began
        self._data = [Path(file).read_bytes() for file in files]
        self._pixels = _random_pixels(self._encoder.image_size[0])

    def facts(self) -> dict[str, Any]:
        encoder = self._encoder
        return {
            "backend": encoder.backend,
            "precision": encoder.precision,
            "device": encoder.device,
            "load_s": self._load_seconds,
        }

    def encoder(self, batch: int, seconds: float) -> list[float]:
        """Seconds of each run on `batch` images."""
        return _timed(lambda: self._encoder.encode_pixels(self._pixels[:batch]), seconds)

    def from_files(self, batch: int, seconds: float) -> list[float]:
        """The same from the files' bytes on."""
        data, size = _repeated(self._data, batch), self._encoder.image_size

        def run() -> None:
            self._encoder.encode_images([decode_image(item, target=size) for item in data])

        return _timed(run, seconds)

    def vectors(self) -> np.ndarray:
        """Of the files' images, for the comparison of precisions."""
        return self._encoder.encode_images([decode_image(item) for item in self._data])

    def large_jpegs(self, count: int) -> dict[str, float]:
        """Reduced-scale decoding against decoding whole, of images enlarged to 12 megapixels."""
        cosines, whole_s, reduced_s = [], [], []
        for item in self._data[:count]:
            data = _enlarged(decode_image(item))
            began = time.perf_counter()
            whole = decode_image(data)
            middle = time.perf_counter()
            reduced = decode_image(data, target=self._encoder.image_size)
            whole_s.append(middle - began)
            reduced_s.append(time.perf_counter() - middle)
            one, two = self._encoder.encode_images([whole, reduced])
            cosines.append(float(one @ two))
        return {
            "images": len(cosines),
            "least_cosine": min(cosines),
            "mean_cosine": statistics.fmean(cosines),
            "whole_ms": statistics.median(whole_s) * 1e3,
            "reduced_ms": statistics.median(reduced_s) * 1e3,
        }


def _timed(run: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each of at least two runs, repeated for about `seconds` after a warm-up."""
    run()
    times: list[float] = []
    while len(times) < 2 or sum(times) < seconds:
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return times


def _random_pixels(side: int) -> np.ndarray:
    pixels = np.random.default_rng(0).standard_normal((MOST_AT_ONCE, 3, side, side))
    return pixels.astype(np.float32)


def _repeated(items: list[bytes], count: int) -> list[bytes]:
    return [items[number % len(items)] for number in range(count)]


def _enlarged(image: Image.Image) -> bytes:
    scale = math.sqrt(LARGE_PIXELS / (image.width * image.height))
    size = (round(image.width * scale), round(image.height * scale))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()
