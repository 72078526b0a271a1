"""From a torch image tower to an OpenVINO graph, and from that to an int8 one."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from models.errors import UserError
from models.openvino_backend import GRAPH_NAME
from models.openvino_import import import_openvino
from models.preprocess import Preprocessor


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
            "precision int8 needs the package nncf; pip install 'clipdex[int8]'", param="precision"
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
