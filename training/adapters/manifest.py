"""What an adapter's folder says of itself: manifest, metrics, and the checksum of each file.

Nothing here imports torch: what only lists adapters must not pay for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from storage.durable import sha256_of
from training.errors import AdapterError, FingerprintError

FORMAT = 2
MANIFEST = "manifest.json"
HEAD, WEIGHTS = "head", "weights"  # what an adapter changes


@dataclass(frozen=True)
class AdapterManifest:
    """What stands in manifest.json.

    kind: of the head, or "clip"; changes: "head" (both towers stay as they are) or "weights"
    base_model: id; fingerprint: of the encoder that made the features
    classes: names in the order of the logits; prompts: each class's texts
    preprocess: SHA-256 of what the encoder's preprocessing makes of a fixed picture
    recipe: as plain data; why: the method and its strengths, with their reasons
    data: digest of samples and split; split: digests of its two sides
    files: SHA-256 by relative path; versions: of the packages that took part
    """

    kind: str
    changes: str
    base_model: str
    fingerprint: str
    classes: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    logit_scale: float
    logit_bias: float | None
    dim: int
    preprocess: str
    recipe: Mapping[str, Any]
    why: str
    data: str
    split: Mapping[str, str]
    seed: int
    created: str
    versions: Mapping[str, str]
    files: Mapping[str, str]
    format: int = FORMAT


def seal(folder: Path, about: Mapping[str, Any], *, metrics: Mapping[str, Any], card: str) -> None:
    """Add metrics and card to what lies in a folder, and the manifest with all checksums.

    about: the manifest's fields but `files` and `format`
    """
    (folder / "metrics.json").write_text(_json(metrics), encoding="utf-8")
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    files = {
        path.relative_to(folder).as_posix(): sha256_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = AdapterManifest(files=files, **about)
    fields = asdict(manifest)
    (folder / MANIFEST).write_text(
        _json({**fields, "checksum": _checksum(fields)}), encoding="utf-8"
    )


def read_manifest(folder: Path) -> AdapterManifest:
    """The manifest alone.

    Raises: AdapterError if it is missing, damaged or of another format.
    """
    try:
        fields = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        checksum = fields.pop("checksum")
        if checksum != _checksum(fields):
            raise AdapterError(f"{folder}/{MANIFEST} is damaged: its checksum is wrong")
        if fields["format"] != FORMAT:
            raise AdapterError(f"{folder} is of format {fields['format']}, this reads {FORMAT}")
        fields["classes"] = tuple(fields["classes"])
        fields["prompts"] = tuple(tuple(texts) for texts in fields["prompts"])
        return AdapterManifest(**fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise AdapterError(f"{folder}/{MANIFEST} is missing or damaged: {exc}") from exc


def verified_manifest(folder: Path, *, fingerprint: str) -> AdapterManifest:
    """The manifest, once it is for this model and all files are what it says.

    Raises: AdapterError, FingerprintError.
    """
    manifest = read_manifest(folder)
    if manifest.fingerprint != fingerprint:
        raise FingerprintError(
            f"this adapter was made for {manifest.base_model} "
            f"({manifest.fingerprint[:12]}), not for the model at hand ({fingerprint[:12]}); "
            "train it again on this one"
        )
    verify_files(folder, manifest)
    return manifest


def read_metrics(folder: Path) -> Mapping[str, Any]:
    """metrics.json. Raises: AdapterError."""
    try:
        metrics: Mapping[str, Any] = json.loads(
            (folder / "metrics.json").read_text(encoding="utf-8")
        )
    except (OSError, ValueError) as exc:
        raise AdapterError(f"{folder} is damaged: {exc}") from exc
    return metrics


def verify_files(folder: Path, manifest: AdapterManifest) -> None:
    """Compare every file with its checksum.

    Raises: AdapterError naming what is missing, changed or not in the manifest.
    """
    present = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    } - {MANIFEST}
    if odd := sorted(present ^ set(manifest.files)):
        raise AdapterError(f"{folder}: files missing or not in the manifest: {', '.join(odd)}")
    for name, checksum in manifest.files.items():
        if sha256_of(folder / name) != checksum:
            raise AdapterError(f"{folder}/{name} has been changed: its checksum is wrong")


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def _checksum(fields: Mapping[str, Any]) -> str:
    text = json.dumps(fields, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
