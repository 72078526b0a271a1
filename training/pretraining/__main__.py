"""Pretrain `everyday`, the embedded CLIP, from photographs, drawings and words.

    python -m training.pretraining --data ../shared/data --out models/everyday

Three stages: the image tower with its class vectors, the text tower onto those vectors, and the
scale of the similarities. The image stage continues from its last checkpoint; the text stage is
short and starts anew. The logged curve is drawn beside the model.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from safetensors.torch import load_file, save_file

from models.towers import save_clip
from training.pretraining.captions import build_captions, reading
from training.pretraining.image import MODEL_CONFIG, PREPROCESS_CONFIG, ImageRecipe, ImageTraining
from training.pretraining.scale import fit_scale
from training.pretraining.teacher import embed
from training.pretraining.text import MERGES_NAME, TextRecipe, TextTraining
from training.pretraining.vocabulary import learn_merges, write_merges
from training.pretraining.words import Words

SMOOTHING = 0.97  # of the logged losses; one step's loss jumps too much to read
LOG_EVERY = 25


def main() -> None:
    """Command line of the pretraining."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    workdir: Path = arguments.checkpoints
    workdir.mkdir(parents=True, exist_ok=True)
    recipe = ImageRecipe()
    run = ImageTraining(recipe, arguments.data, workdir)
    if not run.resume():
        run.start()
    console = Console(stderr=True)
    with (workdir / "log.jsonl").open("a", encoding="utf-8") as log:
        for measured in _shown("image", run.run(), run.step, recipe.steps, log, console):
            if run.step % arguments.every == 0 or run.step == recipe.steps:
                run.save()
            del measured
        state = run.visual_state() | _train_text(run, arguments, workdir, log, console)
    scale = fit_scale(state, MODEL_CONFIG, arguments.data, workdir)
    console.print(f"scale of the similarities: {scale:.1f}")
    state["logit_scale"] = torch.tensor(scale).log()
    export(state, arguments.out, workdir)
    plot_curve(workdir / "log.jsonl", arguments.out / "loss.png")
    console.print(f"wrote {arguments.out}")


def _train_text(
    run: ImageTraining,
    arguments: argparse.Namespace,
    workdir: Path,
    log: TextIO,
    console: Console,
) -> dict[str, torch.Tensor]:
    """The text tower's averaged state, fitted to the image tower's class vectors."""
    words = Words(arguments.data, concept_rows=run.table.concept_rows.tolist())
    write_merges(workdir / MERGES_NAME, learn_merges(words.all_texts()))
    texts = words.texts()
    teacher = workdir / "teacher.safetensors"
    if not teacher.exists():
        save_file({"vectors": embed(texts)}, teacher)
    embedding = dict(zip(texts, load_file(teacher)["vectors"], strict=True))
    rows = run.averaged().class_vectors()
    vectors = torch.cat([rows[: run.table.nodes], rows[run.table.concept_rows]])
    recipe = replace(TextRecipe(), steps=arguments.text_steps)
    text = TextTraining(recipe, build_captions(words, vectors, embedding), vectors, workdir)
    text.start_embeddings(reading(words, embedding))
    for _ in _shown("text", text.steps(), 0, recipe.steps, log, console):
        pass
    return text.average


def _shown(
    stage: str,
    steps: Iterable[dict[str, float]],
    first: int,
    total: int,
    log: TextIO,
    console: Console,
) -> Iterable[dict[str, float]]:
    """The steps' measurements, with progress on the console and smoothed losses in the log."""
    columns = (
        TextColumn(f"{stage:>6}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
    )
    smooth: dict[str, float] = {}
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(stage, total=total, completed=first, loss=0.0)
        for step, measured in enumerate(steps, first + 1):
            for key, value in measured.items():
                smooth[key] = SMOOTHING * smooth.get(key, value) + (1 - SMOOTHING) * value
            bar.update(task, completed=step, loss=smooth["loss"])
            if step % LOG_EVERY == 0:
                losses = {key: round(value, 4) for key, value in smooth.items()}
                row: dict[str, object] = {"stage": stage, "step": step, **losses}
                log.write(json.dumps(row) + "\n")
                log.flush()
                if not console.is_terminal:
                    print(row, file=sys.stderr)
            yield measured


def export(state: dict[str, torch.Tensor], folder: Path, workdir: Path) -> None:
    """Write both towers as an open_clip folder, in half precision, with vocabulary and log."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in ((MERGES_NAME, MERGES_NAME), ("training_log.jsonl", "log.jsonl")):
        shutil.copyfile(workdir / source, folder / name)
    save_clip(folder, state, model_cfg=MODEL_CONFIG, preprocess_cfg=PREPROCESS_CONFIG, half=True)


def plot_curve(log: Path, out: Path) -> None:
    """Draw the logged losses of both stages over their steps."""
    from matplotlib.figure import Figure

    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, stage in zip(figure.subplots(1, 2), ("image", "text"), strict=True):
        own = [row for row in rows if row.get("stage") == stage]
        for key in sorted({key for row in own for key in row} - {"stage", "step", "size"}):
            points = [(row["step"], row[key]) for row in own if key in row]
            axes.plot(*zip(*points, strict=True), label=key)
        axes.set(xlabel=f"step of the {stage} stage", ylabel="loss, moving average")
        if own:
            axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(out, dpi=110)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Pretrain the embedded model `everyday`.")
    parser.add_argument("--data", type=Path, required=True, help="folder with words/, photos/ ...")
    parser.add_argument("--out", type=Path, required=True, help="where the model folder goes")
    parser.add_argument("--checkpoints", type=Path, default=Path(".checkpoints/everyday"))
    parser.add_argument("--every", type=int, default=100, help="image steps between checkpoints")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--text-steps", type=int, default=TextRecipe().steps)
    return parser.parse_args()


if __name__ == "__main__":
    main()
