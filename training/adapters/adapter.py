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

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.adapters.manifest import (
    HEAD,
    AdapterManifest,
    read_metrics,
    seal,
    verified_manifest,
)
from training.errors import AdapterError
from training.heads import (
    CacheHead,
    CosineHead,
    FeatureHead,
    GaussianHead,
    LinearHead,
    ProjectionHead,
)

HEADS: dict[str, type[FeatureHead]] = {
    "cosine": CosineHead,
    "linear": LinearHead,
    "gaussian": GaussianHead,
    "cache": CacheHead,
    "projection": ProjectionHead,
}
_GOLDEN = 16  # samples
_CLOSE = 1e-4  # of the logit scale: what another machine's rounding may change


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
