"""Pretrain `pictogram`, the embedded CLIP, from drawings and their names.

    python -m training.pretrain --data ../shared/data/pictograms --out models/pictogram

Continues from its last checkpoint; writes the loss curve beside the model as it goes.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from training.pictogram_pretraining import Pretraining, PretrainRecipe

SMOOTHING = 0.97  # of the logged losses; one step's loss jumps too much to read


def main() -> None:
    """Command line of the pretraining."""
    arguments = _arguments()
    recipe = replace(
        PretrainRecipe(),
        class_steps=arguments.class_steps,
        word_steps=arguments.word_steps,
        contrastive_steps=arguments.contrastive_steps,
        decay_steps=arguments.decay_steps,
    )
    run = Pretraining(recipe, arguments.data, arguments.checkpoints, torch.device(arguments.device))
    run.resume()
    console = Console(stderr=True)
    log_path = arguments.checkpoints / "log.jsonl"
    columns = (
        TextColumn("{task.description:>11}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
    )
    smooth: dict[str, float] = {}
    with log_path.open("a", encoding="utf-8") as log, Progress(*columns, console=console) as bar:
        task = bar.add_task("classes", total=recipe.total_steps, completed=run.step, loss=0.0)
        for stage, measured in run.stages():
            for key, value in measured.items():
                smooth[key] = SMOOTHING * smooth.get(key, value) + (1 - SMOOTHING) * value
            bar.update(task, completed=run.step, description=stage, loss=smooth["loss"])
            if run.step % 25 == 0:
                losses = {key: round(value, 4) for key, value in smooth.items()}
                row: dict[str, object] = {"step": run.step, "stage": stage, **losses}
                log.write(json.dumps(row) + "\n")
                if not console.is_terminal:
                    print(row, file=sys.stderr)
            if run.step % arguments.every == 0 or run.step == recipe.total_steps:
                run.save()
                row = {"step": run.step, **run.validate(stage)}
                log.write(json.dumps(row) + "\n")
                bar.console.print(row)
            log.flush()
    run.export(arguments.out)
    plot_curve(log_path, arguments.out / "loss.png")
    console.print(f"wrote {arguments.out}")


def plot_curve(log: Path, out: Path) -> None:
    """Draw the logged losses and validation accuracies over the steps."""
    from matplotlib.figure import Figure

    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(9, 4), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    for key in ("loss", "contrast", "class", "word"):
        points = [(row["step"], row[key]) for row in rows if key in row]
        if points:
            losses.plot(*zip(*points, strict=True), label=key)
    for key in ("classes", "names"):
        points = [(row["step"], row[key][0]) for row in rows if key in row]
        if points:
            accuracies.plot(*zip(*points, strict=True), label=f"top-1 by {key}")
    losses.set(xlabel="step", ylabel="loss, moving average")
    accuracies.set(xlabel="step", ylabel="accuracy on the validation style")
    for axes in (losses, accuracies):
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(out, dpi=110)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Pretrain the embedded model `pictogram`.")
    parser.add_argument("--data", type=Path, required=True, help="folder of STYLE.zip, names.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="where the model folder goes")
    parser.add_argument("--checkpoints", type=Path, default=Path(".checkpoints/pictogram"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints")
    recipe = PretrainRecipe()
    for name in ("class_steps", "word_steps", "contrastive_steps", "decay_steps"):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, default=getattr(recipe, name))
    return parser.parse_args()


if __name__ == "__main__":
    main()
