"""The manifest: what an index on disk is, and the checksum of each of its files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from indexer.calibration import Calibration
from indexer.durable import sha256_of, write_file
from indexer.errors import BrokenIndexError
from indexer.layout import Layout

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
    crowd: vectors after those, of everyday words, in an index of few categories; see indexer.crowd
    dim: length of a vector
    source: the folder whose images these are; None for categories
    templates: {"name", "texts"} of the prompts; None for images
    layout: how the FAISS index is built and searched, with what was measured of it
    calibration: what `clipdex eval --calibrate` fitted, or None
    files: checksums by name
    """

    kind: Literal["categories", "images"]
    created: str
    count: int
    rows: int
    crowd: int
    dim: int
    model: ModelRecord
    source: str | None
    templates: Mapping[str, Any] | None
    layout: Layout
    calibration: Calibration | None
    files: Mapping[str, FileRecord]
    format: int = FORMAT

    def as_json(self) -> dict[str, Any]:
        """The manifest as JSON values, for people and for `write_manifest`."""
        return dataclasses.asdict(self)


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


def _parse(value: dict[str, Any]) -> Manifest:
    layout, calibration = value.pop("layout"), value.pop("calibration")
    return Manifest(
        **{key: item for key, item in value.items() if key not in ("model", "files")},
        model=ModelRecord(**value["model"]),
        layout=Layout.from_json(layout),
        calibration=Calibration.from_json(calibration) if calibration else None,
        files={name: FileRecord(**record) for name, record in value["files"].items()},
    )


def _serialise(value: dict[str, Any]) -> bytes:
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    text = json.dumps({**value, _CHECKSUM: digest}, indent=2, sort_keys=True, ensure_ascii=False)
    return text.encode() + b"\n"
