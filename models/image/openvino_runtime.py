"""The image tower on OpenVINO: converted once by torch, then run without it."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import ModuleType

import numpy as np

from models.encoder import Vectors, normalized
from models.machine import cpu_count, cpu_has_bf16

GRAPH_NAME = "image.xml"
# Larger batches are cut to this, to bound the memory that activations take.
_BATCH = 32


def import_openvino() -> ModuleType:
    """OpenVINO, which then sends nothing to anyone.

    Importing and converting report to a web analytics service unless the package
    openvino_telemetry is missing, which OpenVINO and nncf both provide for; None in `sys.modules`
    makes it so. A process that imported that package before keeps it: it was somebody's wish.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino  # type: ignore[no-any-return]


class OpenVinoImageTower:
    """A converted tower on the CPU; any batch size runs through one compiled graph."""

    backend = "openvino"
    device = "cpu"

    def __init__(self, folder: Path, *, precision: str) -> None:
        """folder: holds the converted graph, quantised already if `precision` is int8."""
        self.precision = precision
        # What a quantised graph leaves in floating point is quicker in bf16 too.
        low = precision == "bf16" or (precision == "int8" and cpu_has_bf16())
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if low else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": cpu_count(),
        }
        core = import_openvino().Core()
        self._request = core.compile_model(
            folder / GRAPH_NAME, "CPU", options
        ).create_infer_request()
        self._lock = threading.Lock()

    def __call__(self, pixels: Vectors) -> Vectors:
        """float32 [N, 3, H, W] -> float32 [N, D], rows of unit norm."""
        rows = []
        with self._lock:
            for start in range(0, len(pixels), _BATCH):
                batch = np.ascontiguousarray(pixels[start : start + _BATCH])
                rows.append(self._request.infer([batch], share_inputs=True)[0])
        return normalized(np.concatenate(rows))

    def close(self) -> None:
        """Free the compiled graph and end its threads; the tower can't be called afterwards."""
        with self._lock:
            del self._request
