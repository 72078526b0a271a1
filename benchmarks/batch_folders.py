"""Folders of as many different JPEG files as a measurement needs, made once and kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.http_sides import photo_like

SMALL = 96  # pixels
_MADE = 24


def make_folder(folder: Path, data: Path | None, count: int, *, small: bool) -> Path:
    """`count` crops of photographs (of made pictures, without `data`), no two alike.

    small: 96 x 96 pixels each, else at least four fifths of the photograph's edges
    """
    if data is None:
        folder = folder.with_name(f"made-{folder.name}")
    if folder.is_dir():
        return folder
    staged = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    rng = np.random.default_rng(0)
    originals = list(_originals(data, rng))
    for number in range(count):
        crop = _crop(originals[number % len(originals)], rng)
        if small:
            crop = crop.resize((SMALL, SMALL), Image.Resampling.BICUBIC)
        crop.save(staged / f"{number:06}.jpg", quality=int(rng.integers(85, 93)))
    staged.rename(folder)
    return folder


def _originals(data: Path | None, rng: np.random.Generator) -> Iterator[Image.Image]:
    if data is None:
        for _ in range(_MADE):
            yield photo_like(rng)
        return
    for path in sorted((data / "photos").glob("*.jpg")):
        with Image.open(path) as image:
            yield image.convert("RGB")


def _crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    share = rng.uniform(0.8, 1)
    width, height = int(image.width * share), int(image.height * share)
    left = int(rng.integers(0, image.width - width + 1))
    top = int(rng.integers(0, image.height - height + 1))
    return image.crop((left, top, left + width, top + height))
