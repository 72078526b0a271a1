"""The files of one version of an index: FAISS's, a table, and the manifest."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from indexer.durable import publish_folder, sync_file
from indexer.errors import BrokenIndexError, ConflictError, StorageError, WrongModelError
from indexer.flat_vectors import FlatVectors
from indexer.ivf_vectors import IvfVectors
from indexer.manifest import Manifest, read_manifest, record_file, verify_files, write_manifest
from indexer.vector_index import read_vectors, write_vectors

_VECTORS = "index.faiss"


def read_index(
    folder: Path, kind: Literal["categories", "images"], *, fingerprint: str | None
) -> tuple[Manifest, FlatVectors | IvfVectors]:
    """The manifest and the vectors; every file's checksum is verified, the table's too.

    fingerprint: of the encoder that will make the query vectors
    Raises: BrokenIndexError naming the file at fault; WrongModelError.
    """
    manifest = read_manifest(folder)
    if manifest.kind != kind:
        raise BrokenIndexError(f"{folder} holds an index of {manifest.kind}, not of {kind}")
    if fingerprint is not None:
        check_fingerprint(manifest, fingerprint, str(folder))
    verify_files(folder, manifest)
    vectors = read_vectors(folder / _VECTORS, manifest.layout)
    if len(vectors) != manifest.rows + manifest.crowd:
        raise BrokenIndexError(f"{folder / _VECTORS} holds another index's vectors")
    return manifest, vectors


def write_index(
    folder: Path,
    manifest: Manifest,
    vectors: FlatVectors | IvfVectors,
    table: str,
    write_table: Callable[[Path], None],
) -> None:
    """Write and sync every file into an existing, empty folder; the manifest comes last.

    table: name of the table's file, which `write_table` writes
    Raises: StorageError.
    """
    try:
        write_vectors(vectors, folder / _VECTORS)
        write_table(folder / table)
        files = {}
        for name in (_VECTORS, table):
            sync_file(folder / name)
            files[name] = record_file(folder / name)
        write_manifest(folder, dataclasses.replace(manifest, files=files))
    except (OSError, RuntimeError) as error:  # FAISS says RuntimeError for a full disk
        raise StorageError(f"can't write the index to {folder}: {error}") from error


def save_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Make a new folder, whole or not at all, of what `write` writes into it.

    Raises: ConflictError if the folder exists.
    """
    if folder.exists():
        raise ConflictError(f"{folder} exists already; an index never changes once written")
    staged = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    staged.mkdir(parents=True)
    write(staged)
    publish_folder(staged, folder)


def check_fingerprint(manifest: Manifest, fingerprint: str, name: str) -> None:
    """Raises: WrongModelError if the fingerprint isn't the index's own."""
    if manifest.model.fingerprint != fingerprint:
        raise WrongModelError(
            f"{name} was built with {manifest.model.id} (fingerprint "
            f"{manifest.model.fingerprint[:12]}), not with the model in use ({fingerprint[:12]}); "
            "build it again with this model",
            param="index",
        )
