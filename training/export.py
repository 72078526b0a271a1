"""From a finished run to an adapter's folder, and from an adapter to a model for elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from models.towers import fold_projection, load_clip, save_local_dir
from training.adapter import HEAD, WEIGHTS, write_adapter
from training.adapter_store import AdapterStore
from training.card import model_card
from training.comparison import measure, measure_tower
from training.data.dataset import Dataset, ZeroShot
from training.errors import AdapterError, ExportError
from training.heads import FeatureHead, ProjectionHead
from training.loop import Run
from training.method import need_zero_shot
from training.parts import to_plain
from training.tower import Tuned
from training.tuned_model import TunedModel, write_tuned_model

__all__ = ["export", "export_model", "export_tower", "measure", "measure_tower"]

PACKAGES = ("clipdex", "torch", "numpy", "safetensors", "open-clip-torch", "peft", "scikit-learn")
REPORT = "report.html"


def export(
    folder: Path,
    run: Run,
    data: Dataset,
    *,
    base_model: str,
    plots: bool = True,
    preprocess: str = "",
    why: str = "",
    report: Path | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> None:
    """Write a run's head as an adapter into an empty folder.

    base_model: the encoder's id; preprocess, why: see AdapterManifest
    report: an HTML file to put beside it; metrics: what `measure` said, None to measure here

    Raises: AdapterError where the run trained no head.
    """
    head = run.network.network
    if not isinstance(head, FeatureHead):
        raise AdapterError(f"{type(head).__name__} is no head over an encoder's features")
    zero_shot = need_zero_shot(data, "an adapter")
    found = measure(run, data) if metrics is None else metrics
    _papers(folder, run, plots=plots, report=report)
    samples = data.val if len(data.val) else data.train
    spread = torch.linspace(0, len(samples) - 1, min(16, len(samples))).long()
    write_adapter(
        folder,
        head,
        about=_about(run, data, zero_shot, base_model=base_model, preprocess=preprocess, why=why),
        metrics=found,
        features=samples.first_views()[spread],
        card=model_card(run, data, found, base_model=base_model, changes=HEAD, why=why),
    )


def export_tower(
    folder: Path,
    tuned: Tuned,
    data: Dataset,
    *,
    base_model: str,
    preprocess: str = "",
    why: str = "",
    report: Path | None = None,
    metrics: Mapping[str, Any],
) -> None:
    """Write a tuned image tower as an adapter into an empty folder.

    data: the features it was started from; the rest as for `export`
    """
    zero_shot = need_zero_shot(data, "an adapter")
    run = tuned.run
    _papers(folder, run, plots=True, report=report)
    write_tuned_model(
        folder,
        tuned,
        about=_about(run, data, zero_shot, base_model=base_model, preprocess=preprocess, why=why),
        metrics=metrics,
        card=model_card(run, data, metrics, base_model=base_model, changes=WEIGHTS, why=why),
    )


def export_model(
    store: AdapterStore, name: str, version: int | None, folder: Path, *, fingerprint: str
) -> Path:
    """Write an adapter's model as open_clip's `local-dir:` that open_clip alone loads.

    Of weight methods the merged model; of ProLIP the base model with the matrix folded into its
    projection. version: None is the live one. Returns the folder, which must not exist or be empty.

    Raises: ExportError for heads that leave the model as it is, or a folder that is in use;
        UnknownAdapterError, AdapterError, FingerprintError.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} is in use; name a new or an empty folder", param="folder")
    adapter = store.load(name, version, fingerprint=fingerprint)
    final = folder.absolute()
    if isinstance(adapter, TunedModel):
        clip = load_clip(adapter.model_id)
        shutil.copyfile(adapter.folder / "MODEL_CARD.md", _made(folder) / "README.md")
        save_local_dir(folder, clip, clip.module.state_dict(), final=final)
        return folder
    if not isinstance(adapter.head, ProjectionHead):
        raise ExportError(
            f"the adapter {name!r} is a head ({adapter.manifest.kind}): it leaves the model as it "
            f"is, so there is nothing to merge; use {adapter.manifest.base_model} with the "
            "adapter, or train with lora, partial, full or prolip for a model of its own"
        )
    clip = load_clip(adapter.manifest.base_model)
    fold_projection(clip.module.get_submodule("visual"), adapter.head.matrix())
    card = store.folder(name, _chosen(store, name, version)) / "MODEL_CARD.md"
    shutil.copyfile(card, _made(folder) / "README.md")
    save_local_dir(folder, clip, clip.module.state_dict(), final=final)
    return folder


def _chosen(store: AdapterStore, name: str, version: int | None) -> int:
    chosen = store.current(name) if version is None else version
    assert chosen is not None  # load would have said so
    return chosen


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _papers(folder: Path, run: Run, *, plots: bool, report: Path | None) -> None:
    if plots and run.history.loss:
        from training.report import plot_history

        (folder / "plots").mkdir()
        plot_history(run.history).savefig(folder / "plots" / "history.svg", metadata={"Date": None})
    if report is not None:
        shutil.copyfile(report, folder / REPORT)


def _about(
    run: Run, data: Dataset, zero_shot: ZeroShot, *, base_model: str, preprocess: str, why: str
) -> dict[str, Any]:
    return {
        "base_model": base_model,
        "fingerprint": zero_shot.fingerprint,
        "classes": data.classes,
        "prompts": zero_shot.prompts,
        "logit_scale": zero_shot.logit_scale,
        "logit_bias": zero_shot.logit_bias,
        "dim": int(zero_shot.text.shape[1]),
        "preprocess": preprocess,
        "recipe": to_plain(run.recipe),
        "why": why,
        "data": data.digest,
        "split": {"train": data.train.digest, "val": data.val.digest},
        "seed": run.recipe.seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout, or without an extra
            found[name] = "not installed"
    return found
