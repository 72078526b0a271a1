"""The photographs that the embedded model learns from, and those that are held out of everything.

Layout of the data folder: ``photos/`` and ``photos-256.zip`` hold one photograph of each of 600
ImageNet classes (``WNID_name.jpg``), ``photos-64.zip`` holds 200 of each of 200 classes
(``WNID/NNN.jpg``, 64 pixels), ``cifar10/train.zip`` holds small photographs whose labels are not
read here. ``words/imagenet.jsonl`` lists the 1,000 classes.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import random
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

HELD_OUT_LARGE = 200  # of the 600 large photographs
HELD_OUT_SMALL = 20  # of each class of photos-64


@dataclass(frozen=True)
class Photographs:
    """Photographs for training or for judging.

    large: RGB images of any size; large_class: rows of ImageNet's classes
    small: uint8 [N, 3, 64, 64]; small_class: int64 [N]
    """

    large: tuple[Image.Image, ...]
    large_class: tuple[int, ...]
    small: torch.Tensor
    small_class: torch.Tensor


@dataclass(frozen=True)
class PhotographViews:
    """One batch of views, float32 [B, 3, S, S] in [0, 1].

    clean: random crops, as sharp as the photograph is
    view: the same crops, some of them reduced and enlarged again
    label: int64 [B], row of ImageNet's classes; -1 where it is not known
    small: bool [B], whether the photograph is one of photos-64
    """

    clean: torch.Tensor
    view: torch.Tensor
    label: torch.Tensor
    small: torch.Tensor


def load_classes(data: Path) -> list[str]:
    """The wnids of ImageNet's 1,000 classes, in the usual order."""
    lines = (data / "words" / "imagenet.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["wnid"] for line in lines]


def load_photographs(data: Path, *, held_out: bool) -> Photographs:
    """The photographs for training, or those held out of all training.

    The rule depends on names alone: the 200 classes whose wnid has the smallest SHA-256, and
    of each class of photos-64 the 20 names with the smallest SHA-256.
    """
    row_of = {wnid: row for row, wnid in enumerate(load_classes(data))}
    large = dict(_large(data))
    judged = set(sorted(large, key=_digest)[:HELD_OUT_LARGE])
    wnids = sorted(wnid for wnid in large if (wnid in judged) == held_out)
    pixels: list[np.ndarray] = []
    rows: list[int] = []
    with zipfile.ZipFile(data / "photos-64.zip") as archive:
        by_class: dict[str, list[str]] = {}
        for name in sorted(archive.namelist()):
            if name.endswith(".jpg"):
                by_class.setdefault(Path(name).parent.name, []).append(name)
        for wnid, names in by_class.items():
            ordered = sorted(names, key=lambda name: _digest("/".join(Path(name).parts[-2:])))
            judged_names = set(ordered[:HELD_OUT_SMALL])
            for name in names:
                if (name in judged_names) == held_out:
                    pixels.append(np.asarray(_open(archive.read(name))))
                    rows.append(row_of[wnid])
    return Photographs(
        tuple(large[wnid] for wnid in wnids),
        tuple(row_of[wnid] for wnid in wnids),
        torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(),
        torch.tensor(rows),
    )


def photograph_views(
    photographs: Photographs, *, small: int, large: int, size: int, seed: int
) -> PhotographViews:
    """Draw `small` views of photos-64 and `large` views of the large photographs.

    size: side of the views in pixels
    """
    chance = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(photographs.small), (small,), generator=generator)
    picked = [chance.randrange(len(photographs.large)) for _ in range(large)]
    crops = [_crop(photographs.large[row], size, chance) for row in picked]
    clean = torch.cat([_crop_small(photographs.small[rows], size, generator), torch.stack(crops)])
    gain = torch.rand(len(clean), 1, 1, 1, generator=generator) * 0.4 + 0.8
    shift = (torch.rand(len(clean), 3, 1, 1, generator=generator) - 0.5) * 0.1
    clean = (clean * gain + shift).clamp(0, 1)
    view = clean.clone()
    for row in range(len(clean)):
        if chance.random() < 0.4:
            side = chance.randint(22, 52) if row < small else chance.randint(24, 80)
            reduced = F.interpolate(clean[row : row + 1], (side, side), mode="area")
            view[row : row + 1] = F.interpolate(reduced, (size, size), mode="bicubic").clamp(0, 1)
    label = torch.cat(
        [photographs.small_class[rows], torch.tensor([photographs.large_class[r] for r in picked])]
    )
    return PhotographViews(clean, view, label, torch.arange(len(clean)) < small)


def _crop_small(pixels: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """Random crops of 60 to 100 % of the side, half of them mirrored, enlarged to `size`."""
    count = len(pixels)

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    side, aspect = uniform(0.6, 1), torch.exp(uniform(-0.2, 0.2))
    width = (side * aspect.sqrt()).clamp(max=1)
    height = (side / aspect.sqrt()).clamp(max=1)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = width * torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    theta[:, 0, 2] = uniform(-1, 1) * (1 - width)
    theta[:, 1, 1] = height
    theta[:, 1, 2] = uniform(-1, 1) * (1 - height)
    grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
    views = F.grid_sample(
        pixels.float() / 255, grid, mode="bicubic", padding_mode="reflection", align_corners=False
    )
    return views.clamp(0, 1)


def _crop(image: Image.Image, size: int, chance: random.Random) -> torch.Tensor:
    """One random crop of 30 to 100 % of the area, mirrored half the time."""
    area = image.width * image.height * chance.uniform(0.3, 1)
    aspect = math.exp(chance.uniform(-0.28, 0.28))
    width = min(image.width, int(math.sqrt(area * aspect)))
    height = min(image.height, int(math.sqrt(area / aspect)))
    left = chance.randint(0, image.width - width)
    top = chance.randint(0, image.height - height)
    box = (left, top, left + width, top + height)
    resized = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    view = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
    return view.flip(2) if chance.random() < 0.5 else view


def _large(data: Path) -> Iterator[tuple[str, Image.Image]]:
    """(wnid, image) of every large photograph."""
    for path in sorted((data / "photos").glob("*.jpg")):
        yield path.stem.split("_")[0], _open(path.read_bytes())
    with zipfile.ZipFile(data / "photos-256.zip") as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".jpg"):
                yield Path(name).stem.split("_")[0], _open(archive.read(name))


def _open(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content)) as image:
        return image.convert("RGB")


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
