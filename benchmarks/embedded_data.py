"""The images that judge the embedded model, opened one by one.

Held out by a fixed rule, the same as in training: the 200 large photographs whose wnids have the
smallest SHA-256, and of each small class the 20 files whose names have.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

HELD_LARGE, HELD_SMALL = 200, 20
VALIDATION_STYLE = "twemoji"


@dataclass(frozen=True)
class Pictures:
    """Images and what each shows.

    images: functions that open one each; truths: a wnid, a word or a drawing's id
    """

    name: str
    images: Sequence[Callable[[], Image.Image]]
    truths: list[str]


def large_photographs(data: Path) -> Pictures:
    """photos/ and photos-256.zip; the truth is "held WNID" or "WNID"."""
    found: dict[str, Callable[[], Image.Image]] = {}
    for path in sorted((data / "photos").glob("*.jpg")):
        found[path.stem.split("_")[0]] = partial(_open, path.read_bytes())
    for name, image in _zipped(data / "photos-256.zip"):
        found[Path(name).stem.split("_")[0]] = image
    held = set(sorted(found, key=_digest)[:HELD_LARGE])
    wnids = sorted(found)
    truths = [f"held {wnid}" if wnid in held else wnid for wnid in wnids]
    return Pictures("large photographs", [found[wnid] for wnid in wnids], truths)


def small_photographs(data: Path) -> Pictures:
    """The held-out part of photos-64.zip; the truth is the wnid."""
    by_class: dict[str, list[tuple[str, Callable[[], Image.Image]]]] = {}
    for name, image in _zipped(data / "photos-64.zip"):
        key = "/".join(Path(name).parts[-2:])
        by_class.setdefault(Path(name).parent.name, []).append((key, image))
    images, truths = [], []
    for wnid in sorted(by_class):
        ordered = sorted(by_class[wnid], key=lambda pair: _digest(pair[0]))
        images += [image for _, image in ordered[:HELD_SMALL]]
        truths += [wnid] * len(ordered[:HELD_SMALL])
    return Pictures("photos-64", images, truths)


def cifar(data: Path) -> Pictures:
    """cifar10/val.zip; the truth is the class's word."""
    entries = list(_zipped(data / "cifar10" / "val.zip"))
    return Pictures(
        "CIFAR-10", [image for _, image in entries], [Path(name).parent.name for name, _ in entries]
    )


def drawings(data: Path) -> Pictures:
    """The validation style, with its transparency; the truth is the drawing's id."""
    named = (data / "pictograms" / "names.jsonl").read_text(encoding="utf-8")
    entries = [
        (name, image)
        for name, image in _zipped(data / "pictograms" / f"{VALIDATION_STYLE}.zip")
        if f'"{Path(name).stem}"' in named
    ]
    return Pictures(
        VALIDATION_STYLE, [image for _, image in entries], [Path(name).stem for name, _ in entries]
    )


def _zipped(path: Path) -> list[tuple[str, Callable[[], Image.Image]]]:
    with zipfile.ZipFile(path) as archive:
        names = sorted(n for n in archive.namelist() if n.lower().endswith((".jpg", ".png")))
        return [(name, partial(_open, archive.read(name))) for name in names]


def _open(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
