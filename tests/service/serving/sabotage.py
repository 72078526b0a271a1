"""An adapter that is in perfect order, and wrong."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.service.fakes import ColourEncoder
from tests.service.finetuning.shots import SHOTS, shots
from training import Recipe, fit
from training.adapters.export import export
from training.adapters.store import AdapterStore
from training.data import ImageFolder, encode
from training.heads import TextHead


def publish_turned(store: AdapterStore, name: str, encoder: ColourEncoder) -> int:
    """A head whose classes are turned round after training; measured by the gate like any other."""
    folder = store.root.parent / "turned"
    for path, picture in shots(16, SHOTS).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(picture)
    data = encode(encoder, ImageFolder(folder, val=0.5), cache=None)
    run = fit(Recipe(method=TextHead(), epochs=5), data)
    head = run.network.network
    with torch.no_grad():
        turned = head.class_vectors().roll(1, dims=0)
        head.delta += turned - head.class_vectors()

    def write(place: Path) -> None:
        export(place, run, data, base_model=encoder.model_id)

    return store.publish(name, write)
