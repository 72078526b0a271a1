"""The image tower on torch: the reference on a CPU, the way to go on a GPU."""

from __future__ import annotations

import threading

import torch
from torch import nn

from models.encoder import Vectors
from models.image_tower import normalized
from models.machine import cpu_count

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_BATCH_CPU, _BATCH_GPU = 32, 512


class TorchImageTower:
    """open_clip's own image tower, run eagerly."""

    backend = "torch"

    def __init__(self, visual: nn.Module, *, device: str, precision: str) -> None:
        """visual: is moved to the device and cast, not copied."""
        self.device, self.precision = device, precision
        self._dtype = DTYPES[precision]
        self._device = torch.device(device)
        self._visual = visual.to(device=self._device, dtype=self._dtype)
        self._batch = _BATCH_CPU if self._device.type == "cpu" else _BATCH_GPU
        if self._device.type == "cpu":
            limit_threads()
        self._lock = threading.Lock()

    @torch.inference_mode()
    def __call__(self, pixels: Vectors) -> Vectors:
        """float32 [N, 3, H, W] -> float32 [N, D], rows of unit norm."""
        rows = []
        with self._lock:
            for start in range(0, len(pixels), self._batch):
                batch = torch.from_numpy(pixels[start : start + self._batch])
                out = self._visual(batch.to(device=self._device, dtype=self._dtype))
                # CoCa's tower hands its tokens out too.
                pooled = out[0] if isinstance(out, tuple) else out
                rows.append(pooled.float())
            vectors: Vectors = torch.cat(rows).cpu().numpy()
        return normalized(vectors)


def limit_threads() -> None:
    """Keep torch to the processors this process may use: it doesn't see a container's share."""
    torch.set_num_threads(min(torch.get_num_threads(), cpu_count()))


def best_device() -> str:
    """ "cuda" where torch can use one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def gpu_precisions() -> tuple[str, ...]:
    """What a GPU computes well, best first: bf16 has fp32's range, so nothing overflows."""
    return ("bf16", "fp16", "fp32") if torch.cuda.is_bf16_supported() else ("fp16", "fp32")
