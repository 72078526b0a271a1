"""An adapter on disk: a head's weights with everything needed to trust and to serve them.

    weights.safetensors   the head's tensors
    manifest.json         what it is, for which model, how it came about; the checksum of every file
    metrics.json          zero-shot against tuned on held-out samples, and the gate's verdict
    golden.npz            features and the logits they gave: a self-test at every load
    MODEL_CARD.md         the same in words
    report.html           the run's report
    plots/                pictures, if there are any

One that changes the model itself (`tuned_model.py`) has a folder model/ in place of the weights.
Loading verifies all of it, before anything is served. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from storage.durable import sha256_of
from training.errors import AdapterError, FingerprintError
from training.heads import (
    CacheHead,
    CosineHead,
    FeatureHead,
    GaussianHead,
    LinearHead,
    ProjectionHead,
)

FORMAT = 2
MANIFEST = "manifest.json"
HEAD, WEIGHTS = "head", "weights"  # what an adapter changes
HEADS: dict[str, type[FeatureHead]] = {
    "cosine": CosineHead,
    "linear": LinearHead,
    "gaussian": GaussianHead,
    "cache": CacheHead,
    "projection": ProjectionHead,
}
_GOLDEN = 16  # samples
_CLOSE = 1e-4  # of the logit scale: what another machine's rounding may change


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


@dataclass(frozen=True, eq=False)
class Adapter:
    """A verified head, ready to serve."""

    head: FeatureHead
    manifest: AdapterManifest
    metrics: Mapping[str, Any]

    @torch.no_grad()
    def logits(self, features: np.ndarray | Tensor) -> Tensor:
        """float32 [N, D], unit rows -> logits float32 [N, C], at the model's own scale."""
        result: Tensor = self.head(torch.as_tensor(features))
        return result

    @torch.no_grad()
    def ranked(self, features: np.ndarray | Tensor) -> Tensor:
        """The same at zero-shot's level, to be ranked together with other categories' logits."""
        return self.head.at_level(torch.as_tensor(features))

    @torch.no_grad()
    def project(self, features: np.ndarray | Tensor) -> Tensor:
        """float32 [N, D], unit rows -> the same, as categories outside of this head should see
        them: unchanged, but for "projection" heads. A category's logit is then scale * cosine.
        """
        return self.head.project(torch.as_tensor(features))


def head_kind(head: FeatureHead) -> str:
    """The name under which a head is stored.

    Raises: AdapterError for a head that no adapter holds.
    """
    for name, kind in HEADS.items():
        if type(head) is kind:
            return name
    raise AdapterError(f"{type(head).__name__} can't be stored as an adapter")


def write_adapter(
    folder: Path,
    head: FeatureHead,
    *,
    about: Mapping[str, Any],
    metrics: Mapping[str, Any],
    features: Tensor,
    card: str,
) -> None:
    """Write all files into an existing folder (plots may lie there already).

    about: the manifest's fields but `kind`, `changes`, `files` and `format`; features: [N, D], of
    which up to 16 become the self-test.
    """
    save_file(
        {k: v.contiguous() for k, v in head.state_dict().items()}, folder / "weights.safetensors"
    )
    golden = features[:_GOLDEN]
    with torch.no_grad():
        answers = head.eval()(golden)[:, : len(head.text)]  # without other categories
    np.savez(folder / "golden.npz", features=golden.numpy(), logits=answers.numpy())
    seal(folder, {**about, "kind": head_kind(head), "changes": HEAD}, metrics=metrics, card=card)


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


def load_adapter(folder: Path, *, fingerprint: str) -> Adapter:
    """Read and verify an adapter for the encoder with this fingerprint.

    Raises: AdapterError for a missing, changed or unknown file, or answers that aren't reproduced;
        FingerprintError where it was made for another model.
    """
    manifest = verified_manifest(folder, fingerprint=fingerprint)
    if manifest.kind not in HEADS:
        raise AdapterError(f"{folder} holds a head of the unknown kind {manifest.kind!r}")
    try:
        tensors = load_file(folder / "weights.safetensors")
        with np.load(folder / "golden.npz", allow_pickle=False) as golden:
            features, expected = golden["features"], golden["logits"]
    except (SafetensorError, OSError, ValueError, KeyError) as exc:
        raise AdapterError(f"{folder} is damaged: {exc}") from exc
    adapter = Adapter(HEADS[manifest.kind].from_tensors(tensors), manifest, read_metrics(folder))
    found = adapter.logits(features).numpy()
    if found.shape != expected.shape or not np.allclose(
        found, expected, rtol=0, atol=_CLOSE * max(1.0, manifest.logit_scale)
    ):
        raise AdapterError(f"{folder} doesn't reproduce its own answers; train it again")
    return adapter


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
