"""Options that several commands share, and what they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.terminal import Reporter
from service.errors import PathError
from service.settings import Settings

if TYPE_CHECKING:
    from indexer import IndexStore
    from models import Encoder

# ---- Image files named on the command line.


def read_image(path: Path) -> bytes:
    """A file's bytes. Raises: PathError."""
    try:
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise PathError(f"can't read {path}: {reason}", param="path") from error


ModelOption = Annotated[
    str | None, typer.Option("--model", metavar="ID", help="Model id (CLIPDEX_MODEL).")
]


DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="FOLDER", help="Data folder (CLIPDEX_DATA).")
]


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def open_store(settings: Settings) -> IndexStore:
    """The indexes in the data folder."""
    from indexer import IndexStore

    return IndexStore(settings.indexes)


def load_model(settings: Settings, reporter: Reporter) -> Encoder:
    """The settings' model.

    Raises: UnknownModelError, ModelUnavailableError, ModelBrokenError, BackendError.
    """
    from models import load_encoder

    with reporter.phase(f"Loading {settings.model}"):
        return load_encoder(
            settings.model,
            backend=settings.backend,
            device=settings.device,
            precision=settings.precision,
            cache_dir=settings.cache,
        )
