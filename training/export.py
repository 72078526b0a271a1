"""From a finished run to an adapter: measured against zero-shot, put before the gate, written."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from training.adapter import write_adapter
from training.data.dataset import Dataset
from training.errors import AdapterError
from training.gate import GateLimits, GateReport, gate
from training.heads import FeatureHead
from training.loop import Run
from training.method import need_zero_shot
from training.metrics import score
from training.parts import to_plain

PACKAGES = ("clipdex", "torch", "numpy", "safetensors")


def measure(run: Run, data: Dataset, *, limits: GateLimits | None = None) -> dict[str, Any]:
    """metrics.json: zero-shot and tuned on the validation split, and the gate's verdict.

    Without a validation split there is nothing to measure: an empty dictionary, which no gate lets
    pass.
    """
    if not len(data.val):
        return {}
    zero_shot = need_zero_shot(data, "an adapter")
    x, labels = data.val.first_views(), data.val.labels
    tuned, zero = run.logits(x), zero_shot.logits(x)
    scores = [score(logits, labels, data.classes) for logits in (tuned, zero)]
    report = gate(tuned, zero, labels, tuned_scores=scores[0], zero_scores=scores[1], limits=limits)
    return {
        "tuned": asdict(scores[0]),
        "zero_shot": asdict(scores[1]),
        "gain": {"lower": report.gain[0], "mean": report.gain[1], "upper": report.gain[2]},
        "gate": _gate_plain(report),
    }


def export(folder: Path, run: Run, data: Dataset, *, base_model: str, plots: bool = True) -> None:
    """Write a run's head as an adapter into an empty folder.

    base_model: the encoder's id. Raises: AdapterError where the run trained no head.
    """
    head = run.network.network
    if not isinstance(head, FeatureHead):
        raise AdapterError(f"{type(head).__name__} is no head over an encoder's features")
    zero_shot = need_zero_shot(data, "an adapter")
    metrics = measure(run, data)
    if plots and run.history.loss:
        from training.report import plot_history

        (folder / "plots").mkdir()
        plot_history(run.history).savefig(folder / "plots" / "history.svg", metadata={"Date": None})
    samples = data.val if len(data.val) else data.train
    about = {
        "base_model": base_model,
        "fingerprint": zero_shot.fingerprint,
        "classes": data.classes,
        "prompts": zero_shot.prompts,
        "logit_scale": zero_shot.logit_scale,
        "logit_bias": zero_shot.logit_bias,
        "dim": int(zero_shot.text.shape[1]),
        "recipe": to_plain(run.recipe),
        "data": data.digest,
        "seed": run.recipe.seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
    }
    spread = torch.linspace(0, len(samples) - 1, min(16, len(samples))).long()
    write_adapter(
        folder,
        head,
        about=about,
        metrics=metrics,
        features=samples.first_views()[spread],
        card=model_card(run, data, metrics, base_model=base_model),
    )


def model_card(run: Run, data: Dataset, metrics: dict[str, Any], *, base_model: str) -> str:
    """MODEL_CARD.md, in Hugging Face's form: a YAML head, then what matters in words."""
    lines = [
        "---",
        f"base_model: {base_model}",
        "library_name: clipdex",
        "pipeline_tag: image-classification",
        "tags: [clip, few-shot]",
        "---",
        "",
        f"# {len(data.classes)} categories on {base_model}",
        "",
        f"A head over frozen features, trained with `{type(run.recipe.method).__name__}` on "
        f"{len(data.train)} images ({data.shots} of the smallest category).",
        "",
        f"Categories: {', '.join(data.classes)}.",
        "",
    ]
    if metrics:
        lines += ["| | zero-shot | tuned |", "| --- | --- | --- |"]
        for key, name in (
            ("top1", "top-1"),
            ("top5", "top-5"),
            ("calibration_error", "calibration error"),
        ):
            zero, tuned = metrics["zero_shot"][key], metrics["tuned"][key]
            lines.append(f"| {name} | {zero:.3f} | {tuned:.3f} |")
        gain, n = metrics["gain"], metrics["tuned"]["n"]
        lines += [
            "",
            f"Gain {gain['mean']:+.1%} (95 % interval {gain['lower']:+.1%} to "
            f"{gain['upper']:+.1%}, "
            f"paired bootstrap over {n} held-out images).",
            "",
            "Chosen by the training images alone where the method chooses; early stopping and "
            "searches look at the held-out images, which makes their numbers a little too good.",
        ]
    else:
        lines.append("Not measured: there was no held-out split.")
    lines += ["", f"Verdict on the run: {run.diagnosis.verdict}: {run.diagnosis.evidence}.", ""]
    return "\n".join(lines)


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout
            found[name] = "not installed"
    return found


def _gate_plain(report: GateReport) -> dict[str, Any]:
    return {
        "passed": report.passed,
        "failures": list(report.failures),
        "tests": [asdict(test) for test in report.tests],
    }
