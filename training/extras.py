"""Late imports: of the `train` extra, with one clear line where it is not installed; and of what
builds on torchvision, which some builds of torch need help to import.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from models.torchvision_ops import declare_missing_operators
from training.errors import MissingExtraError


def require(module: str, *, needed_for: str) -> ModuleType:
    """Import `module`, which belongs to the `train` extra.

    Raises: MissingExtraError if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        package = module.partition(".")[0]
        if exc.name is None or exc.name.partition(".")[0] != package:
            raise  # something inside the package is broken: that's another story
        raise MissingExtraError(
            f"{needed_for} needs {package!r}; install it with: pip install 'clipdex[train]'"
        ) from exc


def with_torchvision(module: str) -> ModuleType:
    """Import torchvision, or a module on top of it (timm's all are), whatever torch there is."""
    declare_missing_operators()
    return importlib.import_module(module)
