"""The manifest: what an index on disk is, and the checksum of each of its files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from indexer.errors import BrokenIndexError, ConflictError, StorageError, WrongModelError
from indexer.ranking.calibration import Calibration
from indexer.vectors.flat import FlatVectors
from indexer.vectors.ivf import IvfVectors
from indexer.vectors.layout import Layout
from indexer.vectors.vector_index import read_vectors, write_vectors
from storage.durable import publish_folder, sha256_of, sync_file, write_file

FORMAT = 1


MANIFEST = "manifest.json"


_CHECKSUM = "sha256"


@dataclass(frozen=True)
class ModelRecord:
    """The encoder that made the vectors, and how its cosines become probabilities.

    logit_scale: factor on the cosine (already exponentiated)
    logit_bias: added after the factor; a number makes probabilities sigmoids, None a softmax
    """

    id: str
    fingerprint: str
    logit_scale: float
    logit_bias: float | None


@dataclass(frozen=True)
class FileRecord:
    """One file's SHA-256 in hex and its length in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What stands in manifest.json.

    kind: what a row stands for
    created: UTC, ISO 8601
    count: categories or images; rows: their vectors (synonyms have their own)
    other_rows: vectors after those, of everyday words, in an index of few categories; see
        indexer.categories.other_categories
    dim: length of a vector
    source: the folder whose images these are; None for categories
    templates: {"name", "texts"} of the prompts; None for images
    layout: how the FAISS index is built and searched, with what was measured of it
    calibration: what `clipdex eval --calibrate` fitted, or None
    files: checksums by name
    unknown_names: labels and synonyms of which the model's vocabulary knows no word, at most
        `indexer.categories.unknown.MOST_NAMED` of them; unknown_count: how many there are
    """

    kind: Literal["categories", "images"]
    created: str
    count: int
    rows: int
    other_rows: int
    dim: int
    model: ModelRecord
    source: str | None
    templates: Mapping[str, Any] | None
    layout: Layout
    calibration: Calibration | None
    files: Mapping[str, FileRecord]
    unknown_names: tuple[str, ...] = ()  # indexes of older versions don't record them
    unknown_count: int = 0
    format: int = FORMAT

    def as_json(self) -> dict[str, Any]:
        """The manifest as JSON values, for people and for `write_manifest`."""
        value = dataclasses.asdict(self)
        value["crowd"] = value.pop("other_rows")  # the key on disk of old
        return value


def record_file(path: Path) -> FileRecord:
    """The checksum and length of a file that has been written."""
    return FileRecord(sha256_of(path), path.stat().st_size)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write and sync manifest.json, which carries its own checksum."""
    write_file(folder / MANIFEST, _serialise(manifest.as_json()))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an index's folder; its own checksum is verified.

    Raises: BrokenIndexError if it is missing, damaged, or of a format this version doesn't know.
    """
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BrokenIndexError(f"{path} is missing or unreadable: {error.strerror}") from error
    try:
        value = json.loads(data)
    except ValueError as error:
        raise BrokenIndexError(f"{path} is damaged: it isn't JSON") from error
    if not isinstance(value, dict) or _CHECKSUM not in value:
        raise BrokenIndexError(f"{path} is damaged: it has no checksum")
    if value.get("format") != FORMAT and isinstance(value.get("format"), int):
        raise BrokenIndexError(
            f"{path} has format {value['format']}; this version reads format {FORMAT}: build the "
            "index again"
        )
    del value[_CHECKSUM]
    # Comparing the bytes, not the digest alone, also catches damage that JSON doesn't notice.
    if _serialise(value) != data:
        raise BrokenIndexError(f"{path} is damaged: its checksum doesn't match")
    try:
        return _parse(value)
    except (TypeError, AttributeError, KeyError) as error:
        raise BrokenIndexError(f"{path} lacks a field: {error}") from error


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Raises: BrokenIndexError naming the first file that is missing or damaged."""
    for name, record in manifest.files.items():
        path = folder / name
        try:
            size = path.stat().st_size
            digest = sha256_of(path) if size == record.bytes else None
        except OSError as error:
            raise BrokenIndexError(f"{path} is missing or unreadable: {error.strerror}") from error
        if digest != record.sha256:
            raise BrokenIndexError(f"{path} is damaged: its checksum doesn't match the manifest")


_PARSED = ("model", "files", "unknown_names")  # the rest are plain values


def _parse(value: dict[str, Any]) -> Manifest:
    layout, calibration = value.pop("layout"), value.pop("calibration")
    value["other_rows"] = value.pop("crowd")  # the key on disk of old
    return Manifest(
        **{key: item for key, item in value.items() if key not in _PARSED},
        model=ModelRecord(**value["model"]),
        layout=Layout.from_json(layout),
        calibration=Calibration.from_json(calibration) if calibration else None,
        files={name: FileRecord(**record) for name, record in value["files"].items()},
        unknown_names=tuple(value.get("unknown_names", ())),
    )


def _serialise(value: dict[str, Any]) -> bytes:
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    text = json.dumps({**value, _CHECKSUM: digest}, indent=2, sort_keys=True, ensure_ascii=False)
    return text.encode() + b"\n"


# ---- The files of one version of an index: FAISS's, a table, and the manifest.


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
    if len(vectors) != manifest.rows + manifest.other_rows:
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
