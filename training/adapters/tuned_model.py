"""An adapter that changes the model itself: a whole model on disk, merged.

    model/        open_clip's local format: load_encoder and open_clip itself read it
    golden.npz    pictures as uint8 [N, 3, H, W] and their unit vectors [N, D]: a self-test at load

and manifest.json, metrics.json, MODEL_CARD.md, report.html as every adapter has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.errors import ClipdexError
from models.sources.names import LOCAL_PREFIX
from models.towers import load_clip, save_local_dir
from training.adapters.adapter import Adapter, load_adapter
from training.adapters.manifest import (
    WEIGHTS,
    AdapterManifest,
    read_manifest,
    read_metrics,
    seal,
    verified_manifest,
)
from training.errors import AdapterError
from training.tower.tuning import Tuned, bytes_of, scaled

MODEL = "model"
KIND = "clip"
_GOLDEN = 8  # pictures
_CLOSE = 1e-3  # of a unit vector's coordinates: what another machine's rounding may change


@dataclass(frozen=True, eq=False)
class TunedModel:
    """A verified model, ready for load_encoder. Its vectors don't mix with the old model's."""

    folder: Path
    manifest: AdapterManifest
    metrics: Mapping[str, Any]

    @property
    def model_id(self) -> str:
        """For load_encoder."""
        return f"{LOCAL_PREFIX}{self.folder / MODEL}"


def write_tuned_model(
    folder: Path, tuned: Tuned, *, about: Mapping[str, Any], metrics: Mapping[str, Any], card: str
) -> None:
    """Write all files into an existing folder (the report may lie there already)."""
    save_local_dir(folder / MODEL, tuned.clip, tuned.whole_state())
    samples = tuned.images.val if len(tuned.images.val) else tuned.images.train
    spread = torch.linspace(0, len(samples) - 1, min(_GOLDEN, len(samples))).long()
    pixels = samples.inputs[spread]
    with torch.no_grad():
        vectors = tuned.after.eval().features(pixels).numpy()
    np.savez(folder / "golden.npz", pixels=bytes_of(pixels), vectors=vectors)
    seal(folder, {**about, "kind": KIND, "changes": WEIGHTS}, metrics=metrics, card=card)


def open_adapter(folder: Path, *, fingerprint: str) -> Adapter | TunedModel:
    """Read and verify an adapter of either kind, for the encoder with this fingerprint.

    Raises: AdapterError for a missing, changed or unknown file, or answers that aren't reproduced;
        FingerprintError where it was made for another model.
    """
    if read_manifest(folder).changes != WEIGHTS:
        return load_adapter(folder, fingerprint=fingerprint)
    manifest = verified_manifest(folder, fingerprint=fingerprint)
    model = TunedModel(folder, manifest, read_metrics(folder))
    try:
        with np.load(folder / "golden.npz", allow_pickle=False) as golden:
            pixels, expected = golden["pixels"], golden["vectors"]
        clip = load_clip(model.model_id)
    except (OSError, ValueError, KeyError, ClipdexError) as exc:
        raise AdapterError(f"{folder} is damaged: {exc}") from exc
    mean, std = (
        torch.tensor(values)[:, None, None]
        for values in (clip.preprocess.mean, clip.preprocess.std)
    )
    with torch.no_grad():
        found = clip.module.encode_image(  # type: ignore[operator]
            (scaled(pixels) - mean) / std, normalize=True
        ).numpy()
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=0, atol=_CLOSE):
        raise AdapterError(f"{folder} doesn't reproduce its own answers; train it again")
    return model
