"""Building an index of ImageNet's classes in CLIP's 80 templates: open_clip and this project.

    python -m benchmarks.index_build [--classes 200] [--quick] [--out build/bench]

open_clip's `build_zero_shot_classifier` encodes every prompt at full context, so its time is
proportional to the number of classes: it is measured on fewer (`--open-clip-classes`) and scaled,
and the table says so. Our side does the whole job, up to the FAISS index. A randomly initialised
ViT-B/32 is measured, because speed doesn't depend on the weights. Each side is a process of its
own; they take turns, in rounds of alternating order. Prints a table, and writes index_build.json
and index_build.png.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.contenders import Contender, in_turn, machine, make_model, running
from indexer import CategoryIndex
from models import load_encoder
from models.machine import cpu_has_bf16, has_nvidia_driver
from models.prompts import openai_templates

OPEN_CLIP = "open_clip, build_zero_shot_classifier"
WANTED = {"fp32": 15.0, "bf16": 25.0}


class Usual:
    """open_clip's own function on its own model."""

    def __init__(self, model_id: str) -> None:
        import torch

        from models.openclip import import_open_clip

        self._open_clip = import_open_clip()
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        module = self._open_clip.create_model(model_id)
        self._module = module.eval().to(self._device)
        self._tokenizer = self._open_clip.get_tokenizer(model_id)

    def labels(self, count: int) -> list[str]:
        """The first names of ImageNet's classes, each once."""
        return list(dict.fromkeys(self._open_clip.IMAGENET_CLASSNAMES))[:count]

    def build(self, labels: list[str], templates: list[str]) -> tuple[float, np.ndarray]:
        """Seconds, and the vectors float32 [N, D]."""
        began = time.perf_counter()
        weights = self._open_clip.build_zero_shot_classifier(
            self._module, self._tokenizer, labels, templates, device=self._device
        )
        vectors = weights.T.cpu().numpy()
        return time.perf_counter() - began, vectors


class Ours:
    """This project's encoder and index."""

    def __init__(self, model_id: str, backend: str, precision: str, cache: str) -> None:
        self._encoder = load_encoder(
            model_id, backend=backend, precision=precision, cache_dir=Path(cache)
        )
        self._encoder.encode_texts(["the text tower is loaded at its first use"])

    def build(self, labels: list[str], templates: list[str]) -> tuple[float, int]:
        """Seconds, and the number of categories."""
        began = time.perf_counter()
        index = CategoryIndex.build(labels, self._encoder, templates=templates)
        return time.perf_counter() - began, len(index)

    def vectors(self, labels: list[str], templates: list[str]) -> np.ndarray:
        """The categories' vectors float32 [N, D], for the comparison."""
        prompts = [template.format(label) for label in labels for template in templates]
        encoded = self._encoder.encode_texts(prompts)
        means = encoded.reshape(len(labels), len(templates), -1).mean(axis=1)
        return means / np.linalg.norm(means, axis=1, keepdims=True)


def run(
    out: Path, *, classes: int, open_clip_classes: int, rounds: int, templates: list[str]
) -> dict[str, Any]:
    """Measure everything."""
    model_id, cache = make_model(out / "ViT-B-32"), str(out / "cache")
    precisions = ["fp32"]
    precisions += ["bf16"] if cpu_has_bf16() or has_nvidia_driver() else []
    ours = [Contender(p, Ours, model_id, "torch", p, cache) for p in precisions]
    usual = Contender(OPEN_CLIP, Usual, model_id)
    seconds: dict[str, list[float]] = {}
    with running(usual, *ours):
        labels = usual.call("labels", classes)
        few = labels[:open_clip_classes]
        wanted = np.empty((0, 0))
        for number in range(rounds):
            for side in in_turn([usual, *ours], number):
                print(f"round {number + 1}/{rounds}: {side.name}", file=sys.stderr)
                if side is usual:
                    took, wanted = usual.call("build", few, templates)
                    took *= len(labels) / len(few)
                else:
                    took, _ = side.call("build", labels, templates)
                seconds.setdefault(side.name, []).append(took)
        rows = []
        for side in (usual, *ours):
            row: dict[str, Any] = {
                "side": side.name,
                "rounds_s": seconds[side.name],
                "seconds": statistics.median(seconds[side.name]),
                "peak_memory_mb": side.call("peak_memory_mb"),
            }
            if side is not usual:
                vectors = side.call("vectors", few, templates)
                row["largest_difference"] = float(np.abs(vectors - wanted).max())
                row["least_cosine"] = float((vectors * wanted).sum(axis=1).min())
            rows.append(row)
    for row in rows:
        row["times_as_fast"] = rows[0]["seconds"] / row["seconds"]
    return {
        "machine": machine(),
        "classes": len(labels),
        "templates": len(templates),
        "open_clip_measured_on_classes": len(few),
        "rows": rows,
        "promises": [
            {
                "figure": f"building {len(labels)} classes x {len(templates)} templates, {name}",
                "wanted": WANTED[name],
                "measured": row["times_as_fast"],
                "met": row["times_as_fast"] >= WANTED[name],
            }
            for row in rows
            if (name := row["side"]) in WANTED
        ],
    }


def show(results: dict[str, Any]) -> None:
    """Tables on standard output."""
    console = Console()
    scaled = results["open_clip_measured_on_classes"]
    table = Table(
        title=f"{results['classes']} classes x {results['templates']} templates"
        f" (open_clip measured on {scaled} classes, scaled)"
    )
    for name in ("side", "seconds", "times as fast", "largest difference", "least cosine", "MB"):
        table.add_column(name, justify="left" if name == "side" else "right")
    for row in results["rows"]:
        compared = "largest_difference" in row
        table.add_row(
            row["side"],
            f"{row['seconds']:.1f}",
            f"{row['times_as_fast']:.1f}",
            f"{row['largest_difference']:.1e}" if compared else "",
            f"{row['least_cosine']:.5f}" if compared else "",
            f"{row['peak_memory_mb']:.0f}",
        )
    console.print(table)
    table = Table(title="What was promised")
    for name in ("figure", "wanted", "measured", "met"):
        table.add_column(name, justify="left" if name == "figure" else "right")
    for row in results["promises"]:
        cells = (f">= {row['wanted']:g}", f"{row['measured']:.1f}", "yes" if row["met"] else "no")
        table.add_row(row["figure"], *cells)
    console.print(table)


def plot(results: dict[str, Any], path: Path) -> None:
    """Seconds of each side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3))
    rows = results["rows"][::-1]
    bars = axes.barh([row["side"] for row in rows], [row["seconds"] for row in rows])
    axes.bar_label(bars, [f"{row['seconds']:.0f} s" for row in rows], padding=3)
    axes.set(xlabel="seconds", xscale="log", title=f"{results['classes']} classes, 80 templates")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description="Measure index building side by side.")
    parser.add_argument("--classes", type=int, default=200, help="of ImageNet's, at most 998")
    parser.add_argument("--open-clip-classes", type=int, default=20, help="measured, then scaled")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--quick", action="store_true", help="few classes: to see that it works")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    classes, few, rounds = arguments.classes, arguments.open_clip_classes, 3
    if arguments.quick:
        classes, few, rounds = 40, 2, 1
    results = run(
        arguments.out.resolve(),
        classes=classes,
        open_clip_classes=min(few, classes),
        rounds=rounds,
        templates=list(openai_templates(80)),
    )
    text = json.dumps(results, indent=1)
    (arguments.out / "index_build.json").write_text(text + "\n", encoding="utf-8")
    plot(results, arguments.out / "index_build.png")
    show(results)


if __name__ == "__main__":
    main()
