"""Lets `import torchvision` work where its compiled operators can't load.

A torchvision wheel built against CUDA torch carries operators that a CPU torch can't load.
Python's side of torchvision then fails at import, because it registers fake kernels for
`torchvision::nms` and `torchvision::qnms`, which nobody has declared. open_clip imports torchvision
only for its transforms and never calls either. Declaring the two schemas, without an
implementation, is enough; calling them still fails, loudly.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
# A torch.library fragment lives as long as its handle: dropped, it would take the schemas along.
_declared: list[object] = []


def declare_missing_operators() -> bool:
    """Declare the schemas that torchvision's import needs; call before importing it.

    Returns True if they were declared, False where the real operators load (then nothing is
    done) or where this has been done before.
    """
    if _declared or _operators_load():
        return False
    import torch

    fragment = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS.values():
        fragment.define(schema)
    _declared.append(fragment)
    return True


def _operators_load() -> bool:
    """Whether torchvision's own extension, if it has one, loads into this torch."""
    import torch

    if hasattr(torch.ops.torchvision, "nms"):
        return True
    spec = importlib.util.find_spec("torchvision")  # finds, doesn't import
    if spec is None or spec.origin is None:
        return False
    for library in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
        return hasattr(torch.ops.torchvision, "nms")
    return False
