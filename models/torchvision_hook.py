"""Keeps `import open_clip` working after `load_encoder`, even where that didn't import torch.

`load_encoder` promises it, but from a warm cache it has no need of torch, and declaring
torchvision's operators needs it. So the declaration waits until something imports torchvision.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from models.torchvision_ops import declare_missing_operators


class _DeclareFirst(Loader):
    """A module's own loader, behind one step of ours."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the module's own loader does it."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Declare the operators, step aside, run the module."""
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self._loader
        declare_missing_operators()
        self._loader.exec_module(module)


class _TorchvisionFinder(MetaPathFinder):
    """Finds torchvision where it lies, and nothing else."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """torchvision's spec with our loader before its own; None for all other modules."""
        if fullname != "torchvision":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _DeclareFirst(spec.loader)
        return spec


def declare_operators_on_import() -> None:
    """Arrange for the operators to be declared just before torchvision is imported."""
    waiting = any(isinstance(finder, _TorchvisionFinder) for finder in sys.meta_path)
    if "torchvision" not in sys.modules and not waiting:
        sys.meta_path.insert(0, _TorchvisionFinder())
