"""The image tower on torch: the reference on a CPU, the way to go on a GPU."""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from models.encoder import Vectors, normalized
from models.errors import UserError
from models.extras import how_to_install
from models.image.openvino_runtime import GRAPH_NAME, import_openvino
from models.image.preprocess import Preprocessor
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

    def close(self) -> None:
        """Free the weights; the tower can't be called afterwards."""
        with self._lock:
            del self._visual


def limit_threads() -> None:
    """Keep torch to the processors this process may use: it doesn't see a container's share."""
    torch.set_num_threads(min(torch.get_num_threads(), cpu_count()))


def best_device() -> str:
    """ "cuda" where torch can use one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def gpu_precisions() -> tuple[str, ...]:
    """What a GPU computes well, best first: bf16 has fp32's range, so nothing overflows."""
    return ("bf16", "fp16", "fp32") if torch.cuda.is_bf16_supported() else ("fp16", "fp32")


class _Pooled(nn.Module):
    """A tower without the tokens that CoCa's hands out beside its vector."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) -> (N, D)."""
        out = self.visual(pixels)
        pooled: torch.Tensor = out[0] if isinstance(out, tuple) else out
        return pooled


def convert_visual(visual: nn.Module, image_size: tuple[int, int], folder: Path) -> None:
    """Write an fp32 graph for any batch size into the folder.

    torch's fused attention kernel, which `nn.MultiheadAttention` takes by itself in evaluation
    mode, has no counterpart in a traced graph; with it switched off the tower converts directly,
    and no ONNX is needed between.
    """
    openvino = import_openvino()
    height, width = image_size
    example = torch.zeros(2, 3, height, width)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # Tracing warns of every Python number it makes a constant; parity is checked after.
            warnings.simplefilter("ignore")
            graph = openvino.convert_model(
                _Pooled(visual).eval(),
                example_input=(example,),
                input=[openvino.PartialShape([-1, 3, height, width])],
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    openvino.save_model(graph, folder / GRAPH_NAME, compress_to_fp16=False)


def quantize_graph(
    source: Path, images: Sequence[Image.Image], preprocessor: Preprocessor, folder: Path
) -> None:
    """Quantise a converted graph after training: int8 weights and activations.

    source: the folder of the fp32 graph; images: they show the activations' ranges

    Raises: UserError where nncf is not installed.
    """
    openvino = import_openvino()
    try:
        import nncf
    except ImportError as exc:
        raise UserError(
            f"precision int8 needs the package nncf; {how_to_install('int8')}", param="precision"
        ) from exc
    graph = openvino.Core().read_model(source / GRAPH_NAME)
    with contextlib.redirect_stdout(sys.stderr):  # it draws progress bars where results belong
        quantized = nncf.quantize(
            graph,
            nncf.Dataset(images, lambda image: preprocessor(image)[None]),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(images),
        )
    openvino.save_model(quantized, folder / GRAPH_NAME, compress_to_fp16=False)
