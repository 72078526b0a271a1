"""Options that several commands share, and what they lead to."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.terminal import Reporter, note
from service.errors import PathError
from service.settings import Settings

if TYPE_CHECKING:
    from indexer import Category, CategoryIndex, IndexStore
    from models import Encoder


def read_image(path: Path) -> bytes:
    """A file's bytes. Raises: PathError."""
    try:
        return path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise PathError(f"can't read {path}: {reason}", param="path") from error


# Only what these begin is taken for a path that must exist: labels and queries may hold a slash.
_PATH_BEGINNINGS = ("/", "./", "../", "~")
_LABEL_ENDINGS = (".txt", ".csv", ".json", ".jsonl")


def existing_file(text: str, endings: Collection[str], *, param: str) -> Path | None:
    """The file that an argument names; None where it is words.

    endings: of file names, in lower case, with their dot
    Raises: PathError for what is written as a path and isn't a file.
    """
    path = Path(text).expanduser() if text.startswith("~") else Path(text)
    try:
        if path.is_file():
            return path
    except OSError:  # words too long for a name
        return None
    if text.startswith(_PATH_BEGINNINGS) or path.suffix.lower() in endings:
        raise PathError(f"{text} doesn't exist or is no file; check the path", param=param)
    return None


def read_label_file(labels: str) -> list[Category] | None:
    """The categories of the file that --labels names; None where it lists labels itself.

    Raises: PathError, CategoryError.
    """
    from indexer import read_categories

    path = existing_file(labels, () if "," in labels else _LABEL_ENDINGS, param="labels")
    return None if path is None else read_categories(path)


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


def warn_of(index: CategoryIndex) -> None:
    """Say on stderr which of an index's names the model can't read."""
    for warning in index.warnings:
        note(f"warning: {warning}")


@contextmanager
def loaded_model(settings: Settings, reporter: Reporter) -> Iterator[Encoder]:
    """The settings' model; what runs it is ended with the `with` block.

    A process that exits with native threads at work can crash after its result was printed.

    Raises: UnknownModelError, ModelUnavailableError, ModelBrokenError, BackendError.
    """
    from models import load_encoder

    with reporter.phase(f"Loading {settings.model}"):
        encoder = load_encoder(
            settings.model,
            backend=settings.backend,
            device=settings.device,
            precision=settings.precision,
            cache_dir=settings.cache,
        )
    with closing(encoder):
        yield encoder
