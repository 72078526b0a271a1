"""A folder of class folders, checked before anything is trained on it.

    shots/
      cat/1.jpg 2.png ...
      dog/...

Every image is decoded once here. What's wrong is said all at once: unreadable files, the same
picture under two labels, labels that differ by case or blanks only, classes too small to split.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from models.images import ImageError, decode_image, has_image_suffix
from training.data.dataset import Dataset, Samples
from training.data.splits import Floats, near_groups, near_pairs, split, thumbnail
from training.errors import DataError

BALANCES = ("none", "weights", "sampler")


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Weights that make classes of different sizes count alike: int64 [N] -> float32 [C].

        w_c = N / (C N_c)      the mean over samples is 1; a class without samples gets 0

    Every image is seen once a pass. `balanced_order` shows images of rare classes more often
    instead, which augmentation has to vary.

    Source: King & Zeng 2001; scikit-learn's class_weight="balanced".
    """
    counts = torch.bincount(labels, minlength=classes).float()
    weights = len(labels) / (classes * counts)
    return torch.where(counts > 0, weights, torch.zeros_like(weights))


def balanced_order(labels: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """int64 [N] -> int64 [N]: rows drawn with replacement, each class equally likely.

    P(row i) proportional to 1 / N_{y_i}
    """
    chances = class_weights(labels, classes)[labels]
    return torch.multinomial(chances, len(labels), replacement=True, generator=generator)


ENOUGH_TO_SPLIT = 30  # images of the smallest class
_SHARE = 0.2  # of them held out by default
_MAX_PIXELS = 178_956_970  # Pillow's own limit: these are the user's own files
_NAMED = 10  # offenders named in a message; the rest is counted


@dataclass(frozen=True)
class LabelledImage:
    """label: class number; digest: SHA-256 of the decoded pixels; group: of near-duplicates."""

    path: Path
    label: int
    digest: str
    group: int


@dataclass(frozen=True)
class _Read:
    path: Path
    label: int
    digest: str
    thumbnail: Floats


class ImageFolder:
    """Labelled images on disk, de-duplicated and split.

    root: holds one folder a class (sorted, hidden ones left out)
    val: the share of each class for validation, 0 for none; or another such folder to validate on;
        None: 0.2 where every class has at least 30 images, else none, as folds then tell more
    seed: of the split
    skip_bad: leave unreadable files out (see `skipped`) instead of raising

    train, val: tuples of LabelledImage; classes: their names; skipped: (path, reason) of unreadable
    files; dropped: copies of another image of the same class, and training images that validation
    also holds.

    Raises: DataError, naming every offender.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        val: float | str | Path | None = 0.2,
        seed: int = 0,
        skip_bad: bool = False,
    ) -> None:
        self.root = Path(root)
        self.classes = tuple(_class_names(self.root))
        skipped: list[tuple[Path, str]] = []
        own = _read_all(self.root, self.classes, skipped)
        other_root = None if val is None or isinstance(val, int | float) else Path(val)
        other: list[_Read] = []
        if other_root is not None:
            strangers = sorted(set(_class_names(other_root)) - set(self.classes))
            if strangers:
                raise DataError(
                    f"{other_root} has classes that {self.root} lacks: {_list(strangers)}"
                )
            other = _read_all(other_root, self.classes, skipped)
        if skipped and not skip_bad:
            listing = _list(f"{path} ({reason})" for path, reason in skipped)
            raise DataError(f"unreadable images; mend them or skip them (--skip-bad): {listing}")
        self.skipped = tuple(skipped)
        _refuse_two_labels([*own, *other], self.classes)
        own, copies = _without_copies(own)
        other, other_copies = _without_copies(other)
        self.dropped = copies + other_copies
        if other_root is not None:
            own = self._without_leaks(own, other)
            self.train, self.val = self._finish(own), self._finish(other, first_group=len(own))
            self._require_training_images()
        else:
            assert val is None or isinstance(val, int | float)
            share = _enough_to_split(own, len(self.classes)) if val is None else float(val)
            self._split(self._finish(own), share=share, seed=seed)

    def _require_training_images(self) -> None:
        present = {image.label for image in self.train}
        empty = [name for i, name in enumerate(self.classes) if i not in present]
        if empty:
            raise DataError(f"no usable training image for: {_list(empty)}")

    def _split(self, images: tuple[LabelledImage, ...], *, share: float, seed: int) -> None:
        if not 0 <= share < 1:
            raise DataError(f"val must be a share from 0 to below 1, got {share}", param="val")
        if share == 0:
            self.train, self.val = images, ()
            self._require_training_images()
            return
        labels, groups = [i.label for i in images], [i.group for i in images]
        train, held_out = split(labels, groups, self.classes, share=share, seed=seed)
        self.train = tuple(images[i] for i in train)
        self.val = tuple(images[i] for i in held_out)

    def _without_leaks(self, own: list[_Read], other: list[_Read]) -> list[_Read]:
        pairs = near_pairs(_stack(own), _stack(other))
        leaks = {i for i, _ in pairs}
        self.dropped += tuple(image.path for i, image in enumerate(own) if i in leaks)
        return [image for i, image in enumerate(own) if i not in leaks]

    @staticmethod
    def _finish(images: list[_Read], *, first_group: int = 0) -> tuple[LabelledImage, ...]:
        groups = (
            near_groups(_stack(images)) + first_group if images else np.zeros(0, dtype=np.int64)
        )
        return tuple(
            LabelledImage(image.path, image.label, image.digest, int(group))
            for image, group in zip(images, groups, strict=True)
        )


def _enough_to_split(images: Sequence[_Read], classes: int) -> float:
    counts = np.bincount([image.label for image in images], minlength=classes)
    return _SHARE if counts.min() >= ENOUGH_TO_SPLIT else 0.0


def read_image(path: Path) -> Image.Image:
    """A file as an upright RGB image, wholly decoded, exactly as the service decodes it.

    Raises: DataError if it can't be.
    """
    try:
        return decode_image(path.read_bytes(), max_pixels=_MAX_PIXELS)
    except ImageError as exc:
        raise DataError(f"can't read {path.name}: {exc.message}") from exc
    except OSError as exc:
        raise DataError(f"can't read {path.name}: {exc.strerror}") from exc


def _class_names(root: Path) -> list[str]:
    if not root.is_dir():
        raise DataError(f"{root} is no folder; give a folder that holds one folder for each class")
    names = sorted(
        entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    if len(names) < 2:
        raise DataError(f"{root} needs at least two class folders, found {len(names)}")
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[" ".join(name.split()).casefold()].append(name)
    if clashes := [" / ".join(map(repr, same)) for same in alike.values() if len(same) > 1]:
        raise DataError(f"labels that differ by case or blanks only: {_list(clashes)}")
    return names


def _read_all(root: Path, classes: tuple[str, ...], skipped: list[tuple[Path, str]]) -> list[_Read]:
    images = []
    for label, name in enumerate(classes):
        folder = root / name
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.name.startswith(".") or not path.is_file():
                continue
            if not has_image_suffix(path.name):
                skipped.append((path, "not an image file"))
                continue
            try:
                image = read_image(path)
            except DataError as exc:
                skipped.append((path, str(exc.__cause__)))
                continue
            digest = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
            images.append(_Read(path, label, digest, thumbnail(image)))
    return images


def _refuse_two_labels(images: list[_Read], classes: tuple[str, ...]) -> None:
    by_digest: dict[str, list[_Read]] = defaultdict(list)
    for image in images:
        by_digest[image.digest].append(image)
    clashes = [
        " = ".join(f"{classes[image.label]}/{image.path.name}" for image in same)
        for same in by_digest.values()
        if len({image.label for image in same}) > 1
    ]
    if clashes:
        raise DataError(f"the same image under two labels: {_list(clashes)}")


def _without_copies(images: list[_Read]) -> tuple[list[_Read], tuple[Path, ...]]:
    seen: set[str] = set()
    kept, copies = [], []
    for image in images:
        if image.digest in seen:
            copies.append(image.path)
        else:
            seen.add(image.digest)
            kept.append(image)
    return kept, tuple(copies)


def _stack(images: list[_Read]) -> Floats:
    if not images:
        return np.zeros((0, 16, 16, 3), dtype=np.float32)
    return np.stack([image.thumbnail for image in images])


def _list(items: Iterable[str]) -> str:
    every = list(items)
    rest = f", and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return ", ".join(every[:_NAMED]) + rest


def pixels(data: ImageFolder, *, size: int = 32) -> Dataset:
    """Images cropped to a square and resized: float32 [N, 3, size, size] in [0, 1], RGB."""
    return Dataset(train=_side(data.train, size), val=_side(data.val, size), classes=data.classes)


def _side(images: Sequence[LabelledImage], size: int) -> Samples:
    stack = torch.zeros(len(images), 3, size, size)
    for row, image in enumerate(images):
        square = ImageOps.fit(read_image(image.path), (size, size), Image.Resampling.BICUBIC)
        stack[row] = torch.from_numpy(np.asarray(square, dtype=np.float32) / 255).permute(2, 0, 1)
    return Samples(
        inputs=stack,
        labels=torch.tensor([image.label for image in images], dtype=torch.int64),
        groups=torch.tensor([image.group for image in images], dtype=torch.int64),
        names=tuple(str(image.path) for image in images),
    )
