"""Everything that training/ raises on purpose, one sentence each."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from types import ModuleType

from models.errors import ClipdexError, UserError
from models.extras import how_to_install, requirements
from models.openclip import declare_missing_operators


class TrainingError(ClipdexError):
    """A run could not be carried out."""

    code = "training_failed"


class RecipeError(UserError):
    """A recipe holds a value, a name or a combination that can't work."""

    code = "bad_recipe"


class DataError(UserError):
    """The labelled images can't be trained on as they are."""

    code = "bad_training_data"


class MissingExtraError(UserError):
    """A package of the `train` extra is not installed."""

    code = "missing_extra"


class CheckpointError(ClipdexError):
    """A checkpoint is damaged, or belongs to another recipe or other data."""

    code = "checkpoint_unusable"


class HookError(ClipdexError):
    """A hook changed what it may only read."""

    code = "hook_changed_state"


class AdapterError(ClipdexError):
    """An adapter's files are damaged, incomplete or of an unknown kind."""

    code = "adapter_broken"


class UnknownAdapterError(UserError):
    """No adapter, or no version of it, has this name."""

    code = "unknown_adapter"


class AdapterBusyError(UserError):
    """Someone else is changing the adapter, and took too long over it."""

    code = "adapter_busy"


class FingerprintError(UserError):
    """An adapter was made for another model than the one it should serve."""

    code = "fingerprint_mismatch"


class GateError(UserError):
    """An adapter failed a test of the gate and may not go live."""

    code = "gate_refused"


class ExportError(UserError):
    """An adapter can't be written as a model of its own."""

    code = "nothing_to_export"


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
            f"{needed_for} needs {package!r}; install it with: {how_to_install('train')}"
        ) from exc


def require_extra(*, needed_for: str) -> None:
    """Find out before long work whether the whole `train` extra is installed; imports nothing.

    Raises: MissingExtraError naming all packages that are missing.
    """
    names = [re.split(r"[^A-Za-z0-9_-]", one, maxsplit=1)[0] for one in requirements("train")]
    missing = [name for name in names if not _is_installed(name)]
    if missing:
        raise MissingExtraError(
            f"{needed_for} needs {', '.join(missing)}; install with: {how_to_install('train')}"
        )


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def with_torchvision(module: str) -> ModuleType:
    """Import torchvision, or a module on top of it (timm's all are), whatever torch there is."""
    declare_missing_operators()
    return importlib.import_module(module)
