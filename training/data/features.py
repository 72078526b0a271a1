"""Images to features, once: the frozen towers are never run again for the same pictures.

Cached on disk under a key of everything that shapes the numbers: the encoder's fingerprint
(weights, preprocessing, precision), the pictures' digests in order, and the views.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.encoder import Encoder
from models.prompts import ensemble
from storage.durable import replacing
from training.data.dataset import Dataset, Samples, ZeroShot
from training.data.folder import ImageFolder, LabelledImage, read_image
from training.errors import DataError

CACHE = Path("~/.cache/clipdex/features")
_BATCH = 64


@dataclass(frozen=True)
class Views:
    """How training images are varied before the encoder: view 0 is plain, the others random.

    count: views a training image; scale: a crop's share of the area; flip: mirror half of them
    """

    count: int = 1
    scale: tuple[float, float] = (0.6, 1.0)
    flip: bool = True
    seed: int = 0

    def of(self, image: Image.Image, digest: str) -> Iterator[Image.Image]:
        """The image's views; the same for the same picture and seed, whatever stands beside it."""
        yield image
        for number in range(1, self.count):
            key = hashlib.sha256(f"{self.seed}/{digest}/{number}".encode()).digest()
            dice = np.random.default_rng(int.from_bytes(key[:8], "big"))
            edge = dice.uniform(*self.scale) ** 0.5
            width, height = max(1, round(edge * image.width)), max(1, round(edge * image.height))
            left = int(dice.integers(image.width - width, endpoint=True))
            top = int(dice.integers(image.height - height, endpoint=True))
            view = image.crop((left, top, left + width, top + height))
            mirrored = self.flip and dice.random() < 0.5
            yield view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else view


def encode(
    encoder: Encoder,
    data: ImageFolder,
    *,
    views: int | Views = 1,
    templates: Sequence[str] = ("{}",),
    prompts: Mapping[str, Sequence[str]] | None = None,
    cache: Path | None = CACHE,
    on_progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """A folder's images and class names as features.

    views: how many variants of each training image (1: only the plain one); validation is never
    varied templates: sentences with {} for the class name; prompts: a class's own sentences instead
    cache: folder for the features, None for no cache
    on_progress: called with (images done, images in all)

    Returns a Dataset of inputs [N, V, D] with the classes' text vectors.
    Raises: DataError for an unwritable cache or a damaged cache file.
    """
    plan = views if isinstance(views, Views) else Views(count=views)
    if plan.count < 1:
        raise DataError(f"views must be at least 1, got {plan.count}", param="views")
    sides: list[Tensor] = []
    key = cache_key(encoder, data, plan)
    file = cache.expanduser() / f"{key}.safetensors" if cache is not None else None
    if file is not None and file.exists():
        try:
            stored = load_file(file)
        except SafetensorError as exc:
            raise DataError(f"the cached features {file} are damaged; delete the file") from exc
        sides = [stored["train"], stored["val"]]
    else:
        total, done = len(data.train) + len(data.val), 0
        for images, side_plan in ((data.train, plan), (data.val, Views(count=1))):
            rows = []
            for vectors in _encode_side(encoder, images, side_plan):
                rows.append(vectors)
                done += len(vectors)
                if on_progress is not None:
                    on_progress(done, total)
            empty = torch.zeros(0, side_plan.count, encoder.dim)
            sides.append(torch.cat(rows) if rows else empty)
        if file is not None:
            _store(file, sides)
    return Dataset(
        train=_samples(sides[0], data.train),
        val=_samples(sides[1], data.val),
        classes=data.classes,
        zero_shot=zero_shot(encoder, data.classes, templates=templates, prompts=prompts),
    )


def zero_shot(
    encoder: Encoder,
    classes: Sequence[str],
    *,
    templates: Sequence[str] = ("{}",),
    prompts: Mapping[str, Sequence[str]] | None = None,
) -> ZeroShot:
    """The classes' text vectors, each the ensemble of the class's prompts, as an index has them."""
    texts = []
    for name in classes:
        own = (prompts or {}).get(name)
        texts.append(tuple(own) if own else tuple(t.replace("{}", name) for t in templates))
    if any(not sentences for sentences in texts):
        raise DataError("every class needs at least one prompt", param="prompts")
    return ZeroShot(
        text=torch.from_numpy(ensemble(texts, encoder)),
        logit_scale=float(encoder.logit_scale),
        logit_bias=None if encoder.logit_bias is None else float(encoder.logit_bias),
        fingerprint=encoder.fingerprint,
        prompts=tuple(texts),
    )


def cache_key(encoder: Encoder, data: ImageFolder, views: Views) -> str:
    """SHA-256 over all that shapes the features."""
    sha = hashlib.sha256(f"{encoder.fingerprint}\n{views!r}\n".encode())
    for side in (data.train, data.val):
        for image in side:
            sha.update(image.digest.encode())
        sha.update(b"\n")
    return sha.hexdigest()


def _encode_side(
    encoder: Encoder, images: Sequence[LabelledImage], views: Views
) -> Iterator[Tensor]:
    step = max(1, _BATCH // views.count)
    for start in range(0, len(images), step):
        chunk = images[start : start + step]
        varied = [v for image in chunk for v in views.of(read_image(image.path), image.digest)]
        vectors = torch.from_numpy(np.asarray(encoder.encode_images(varied), dtype=np.float32))
        yield vectors.unflatten(0, (len(chunk), views.count))  # (B, V, D)


def _samples(vectors: Tensor, images: Sequence[LabelledImage]) -> Samples:
    return Samples(
        inputs=vectors,
        labels=torch.tensor([image.label for image in images], dtype=torch.int64),
        groups=torch.tensor([image.group for image in images], dtype=torch.int64),
        names=tuple(str(image.path) for image in images),
    )


def _store(file: Path, sides: Sequence[Tensor]) -> None:
    try:
        with replacing(file) as beside:
            save_file({"train": sides[0].contiguous(), "val": sides[1].contiguous()}, beside)
    except OSError as exc:
        raise DataError(
            f"can't write the feature cache {file.parent}: {exc}; give another folder or cache=None"
        ) from exc
