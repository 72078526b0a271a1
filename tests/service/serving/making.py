"""Adapters for the colour encoder, made as the jobs make them, but here and at once."""

from __future__ import annotations

from pathlib import Path

from service.serving.assignments import Assignments
from tests.service.fakes import ColourEncoder
from tests.service.finetuning.shots import SHOTS, shots
from training import AdamW, Recipe, TextHead
from training.adapters.store import AdapterStore
from training.finetune import Sources, finetune_folder

# Nonsense words, which only shots can teach, and two that the encoder knows.
WORDS = [*SHOTS, "yellow", "white"]
# Sure of itself after a moment, so that the gate has nothing against it.
RECIPE = Recipe(method=TextHead(anchor=0.0), optimizer=AdamW(lr=1e-2), epochs=60)


def make_adapter(
    data: Path,
    scratch: Path,
    *,
    name: str = "words",
    index: str = "words",
    method: str = "head",
    classes: dict[str, str] = SHOTS,
    encoder: ColourEncoder | None = None,
) -> int:
    """Train on 16 shots a class and publish; returns the version."""
    chosen = encoder or ColourEncoder()
    folder = scratch / f"shots-{'-'.join(classes.values())}"
    for path, picture in shots(16, classes).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(picture)
    samples = Sources(folder, val=0.5, templates=("{}",), views=1, cache=None).read(chosen)
    done = finetune_folder(
        chosen,
        samples,
        store=AdapterStore(data / "adapters"),
        name=name,
        method=method,
        recipe=RECIPE if method == "head" else None,
        report=scratch / "report.html",
    )
    Assignments(data / "adapters").set_made_for(name, index)
    return done.version
