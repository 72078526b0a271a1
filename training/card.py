"""MODEL_CARD.md in Hugging Face's form: a YAML head, then what matters in words.

Source: huggingface.co/docs/hub/model-cards, "Model card metadata" and "Evaluation results".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from training.data.dataset import Dataset
from training.loop import Run
from training.metrics import in_what_ranking

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
        *(_measured(metrics) if metrics else ["Not measured: there was no held-out split."]),
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
    if metrics:
        lines += [
            "metrics: [accuracy]",
            "model-index:",
            f"- name: {json.dumps(name)}",
            "  results:",
            "  - task:",
            "      type: image-classification",
            "    dataset:",
            "      name: held-out images of the same folder",
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
    gain, n = metrics["gain"], metrics["tuned"]["n"]
    gate = metrics["gate"]
    verdict = "passed" if gate["passed"] else f"refused ({'; '.join(gate['failures'])})"
    return [
        *lines,
        "",
        f"Gain {gain['mean']:+.1%} (95 % interval {gain['lower']:+.1%} to {gain['upper']:+.1%}, "
        f"paired bootstrap over {n} held-out images{in_what_ranking(metrics)}). Gate: {verdict}.",
        "",
        "Rates, strengths and methods are chosen by the training images alone. A recipe that was "
        "searched for, or stops early, has looked at the held-out images, which makes these "
        "numbers a little too good.",
    ]
