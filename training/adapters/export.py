"""MODEL_CARD.md in Hugging Face's form: a YAML head, then what matters in words.

Source: huggingface.co/docs/hub/model-cards, "Model card metadata" and "Evaluation results".
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from models.towers import fold_projection, load_clip, save_local_dir
from training.adapters.adapter import write_adapter
from training.adapters.manifest import HEAD, WEIGHTS
from training.adapters.store import AdapterStore
from training.adapters.tuned_model import TunedModel, write_tuned_model
from training.data.dataset import Dataset, ZeroShot
from training.errors import AdapterError, ExportError
from training.heads import FeatureHead, ProjectionHead
from training.judging.comparison import measure, measure_tower
from training.loop import Run
from training.networks import need_zero_shot
from training.parts import to_plain
from training.report import in_what_ranking, on_what_images, plot_history
from training.tower import Tuned

__all__ = [
    "export",
    "export_model",
    "export_tower",
    "measure",
    "measure_tower",
]

_UNMEASURED = (
    "Not measured: there was no held-out split, and with one image a category no folds either."
)
_ROWS = (("top1", "top-1"), ("top5", "top-5"), ("calibration_error", "calibration error"))


def model_card(
    run: Run,
    data: Dataset,
    metrics: Mapping[str, Any],
    *,
    base_model: str,
    changes: str,
    why: str,
) -> str:
    """The card's text. metrics: as in metrics.json, empty where nothing was measured."""
    method = type(run.recipe.transfer or run.recipe.method).__name__
    what = (
        "A head over frozen features; both towers are the base model's"
        if changes == "head"
        else "The base model with its image tower tuned; the text tower is the base model's"
    )
    lines = [
        *_front_matter(len(data.classes), metrics, base_model),
        f"# {len(data.classes)} categories on {base_model}",
        "",
        f"{what}. Trained with `{method}` on {len(data.train)} images ({data.shots} of the "
        "smallest category).",
        "",
        f"Method: {why}." if why else "Method: as the recipe says.",
        "",
        f"Categories: {', '.join(data.classes)}.",
        "",
        *(_measured(metrics) if "gate" in metrics else [_UNMEASURED]),
        "",
        f"Verdict on the run: {run.diagnosis.verdict}: {run.diagnosis.evidence}.",
        "",
    ]
    return "\n".join(lines)


def _front_matter(classes: int, metrics: Mapping[str, Any], base_model: str) -> list[str]:
    name = f"{classes} categories on {base_model}"
    lines = [
        "---",
        f"base_model: {json.dumps(base_model)}",  # a JSON string is a YAML string
        "library_name: clipdex",
        "pipeline_tag: image-classification",
        "tags: [clip, few-shot]",
    ]
    if "gate" in metrics:
        lines += [
            "metrics: [accuracy]",
            "model-index:",
            f"- name: {json.dumps(name)}",
            "  results:",
            "  - task:",
            "      type: image-classification",
            "    dataset:",
            f"      name: {json.dumps(on_what_images(metrics))}",
            "      type: imagefolder",
            "    metrics:",
            "    - type: accuracy",
            f"      value: {metrics['tuned']['top1']:.4f}",
            "      name: top-1",
        ]
    return [*lines, "---", ""]


def _measured(metrics: Mapping[str, Any]) -> list[str]:
    lines = ["| | zero-shot | tuned |", "| --- | --- | --- |"]
    for key, name in _ROWS:
        zero, tuned = metrics["zero_shot"][key], metrics["tuned"][key]
        lines.append(f"| {name} | {zero:.3f} | {tuned:.3f} |")
    kept = metrics["retention"]
    if kept["zero_shot"] is not None:
        lines.append(
            f"| other categories ({kept['kind']}, {kept['n']} images) | {kept['zero_shot']:.3f} | "
            f"{kept['tuned']:.3f} |"
        )
    gain = metrics["gain"]
    gate = metrics["gate"]
    verdict = "passed" if gate["passed"] else f"refused ({'; '.join(gate['failures'])})"
    return [
        *lines,
        "",
        f"Gain {gain['mean']:+.1%} (90 % interval {gain['lower']:+.1%} to {gain['upper']:+.1%}, "
        f"paired bootstrap over {on_what_images(metrics)}{in_what_ranking(metrics)}). "
        f"Gate: {verdict}.",
        "",
        "Rates, strengths and methods are chosen by the training images alone. A recipe that was "
        "searched for, or stops early, has looked at the held-out images, which makes these "
        "numbers a little too good.",
    ]


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
    _report_and_plots(folder, run, plots=plots, report=report)
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
    _report_and_plots(folder, run, plots=True, report=report)
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


def _report_and_plots(folder: Path, run: Run, *, plots: bool, report: Path | None) -> None:
    if plots and run.history.loss:
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
