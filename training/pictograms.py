"""The pictogram data: concepts drawn in several styles, as tensors.

Layout of the data folder: ``STYLE.zip`` holds ``ID.png`` (72 x 72 RGBA) for each concept the
style draws; ``names.jsonl`` gives every ID its name and keywords.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

VALIDATION_STYLE = "twemoji"


@dataclass(frozen=True)
class Concept:
    """One row of names.jsonl: an ID, its English name and its keywords."""

    id: str
    name: str
    keywords: tuple[str, ...]


@dataclass(frozen=True)
class Drawings:
    """Drawings as tensors.

    pixels: uint8 [N, 4, 72, 72], RGBA, straight (not premultiplied) alpha
    concept: int64 [N], row into the list of concepts
    style: int64 [N], row into `styles`
    """

    pixels: torch.Tensor
    concept: torch.Tensor
    style: torch.Tensor
    styles: tuple[str, ...]


def load_concepts(folder: Path) -> list[Concept]:
    """Read names.jsonl in file order."""
    rows = (folder / "names.jsonl").read_text(encoding="utf-8").splitlines()
    parsed = (json.loads(row) for row in rows)
    return [Concept(row["id"], row["name"], tuple(row["keywords"])) for row in parsed]


def list_styles(folder: Path) -> list[str]:
    """Names of all styles in the folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.zip"))


def load_drawings(folder: Path, styles: list[str], concepts: list[Concept]) -> Drawings:
    """Load every drawing of `styles`; drawings without a name are left out."""
    row_of = {concept.id: row for row, concept in enumerate(concepts)}
    pixels: list[np.ndarray] = []
    concept_rows: list[int] = []
    style_rows: list[int] = []
    for style_row, style in enumerate(styles):
        with zipfile.ZipFile(folder / f"{style}.zip") as archive:
            for entry in sorted(archive.namelist()):
                row = row_of.get(Path(entry).stem)
                if row is None or not entry.endswith(".png"):
                    continue
                with Image.open(io.BytesIO(archive.read(entry))) as image:
                    rgba = image.convert("RGBA").resize((72, 72), Image.Resampling.BICUBIC)
                pixels.append(np.asarray(rgba))
                concept_rows.append(row)
                style_rows.append(style_row)
    stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return Drawings(stacked, torch.tensor(concept_rows), torch.tensor(style_rows), tuple(styles))
