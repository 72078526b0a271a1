"""Small data and a small encoder that the tests of training/ share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from training import Dataset, Samples, ZeroShot


def features(
    seed: int = 0,
    *,
    classes: int = 4,
    shots: int = 8,
    val: int = 25,
    dim: int = 16,
    views: int = 2,
    noise: float = 0.6,
    text_noise: float = 0.7,
) -> Dataset:
    """Unit features around class centres, and text vectors that point roughly the same way."""
    dice = torch.Generator().manual_seed(seed)
    centres = F.normalize(torch.randn(classes, dim, generator=dice), dim=1)
    text = F.normalize(
        centres + text_noise * torch.randn(classes, dim, generator=dice) / dim**0.5, dim=1
    )

    def side(count: int, views: int) -> Samples:
        labels = torch.arange(classes).repeat_interleave(count)
        base = centres[labels] + noise * torch.randn(len(labels), dim, generator=dice) / dim**0.5
        rest = 0.1 * torch.randn(len(labels), views, dim, generator=dice) / dim**0.5
        return Samples(F.normalize(base[:, None] + rest, dim=2), labels)

    return Dataset(
        train=side(shots, views),
        val=side(val, 1),
        classes=tuple(f"class {i}" for i in range(classes)),
        zero_shot=ZeroShot(text=text, logit_scale=20.0, fingerprint="fake"),
    )


def images(
    seed: int = 0, *, classes: int = 3, train: int = 8, val: int = 6, edge: int = 16
) -> Dataset:
    """Noisy colour patterns, [N, 3, edge, edge] in [0, 1]."""
    dice = torch.Generator().manual_seed(seed)
    patterns = torch.rand(classes, 3, edge, edge, generator=dice)

    def side(count: int) -> Samples:
        labels = torch.arange(classes).repeat_interleave(count)
        noise = torch.rand(len(labels), 3, edge, edge, generator=dice)
        return Samples(0.6 * patterns[labels] + 0.4 * noise, labels)

    return Dataset(train=side(train), val=side(val), classes=tuple("abcdefgh"[:classes]))


class FakeEncoder:
    """An Encoder by the letter: a picture's 4 x 4 thumbnail, a text's hash, as unit vectors."""

    model_id = "fake"
    backend = "numpy"
    device = "cpu"
    precision = "fp32"
    dim = 48
    image_size = (4, 4)
    context_length = 77
    logit_scale = 20.0
    logit_bias: float | None = None

    def __init__(self, fingerprint: str = "fake-1") -> None:
        self.fingerprint = fingerprint
        self.encoded = 0

    def preprocess(self, image: Image.Image) -> np.ndarray:
        small = image.convert("RGB").resize((4, 4), Image.Resampling.BOX)
        return (np.asarray(small, dtype=np.float32) / 255 - 0.5).transpose(2, 0, 1)

    def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
        self.encoded += len(pixels)
        flat = pixels.reshape(len(pixels), -1) + np.float32(1e-3)
        return (flat / np.linalg.norm(flat, axis=1, keepdims=True)).astype(np.float32)

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self.encode_pixels(np.stack([self.preprocess(image) for image in images]))

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        rows = []
        for text in texts:
            seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
            rows.append(np.random.default_rng(seed).normal(size=self.dim))
        stack = np.stack(rows)
        return (stack / np.linalg.norm(stack, axis=1, keepdims=True)).astype(np.float32)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) + 2 for text in texts]

    def unknown_words(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """Fake vocabulary: it knows every word that has an ASCII character."""
        return [
            tuple(word for word in text.split() if not any(map(str.isascii, word)))
            for text in texts
        ]


def write_folder(root: Path, counts: dict[str, int], *, seed: int = 0, edge: int = 24) -> Path:
    """A folder of class folders with different pictures: a class's pattern plus noise."""
    dice = np.random.default_rng(seed)
    for name, count in counts.items():
        pattern = dice.integers(0, 256, size=(4, 4, 3))
        (root / name).mkdir(parents=True)
        for number in range(count):
            noise = dice.integers(0, 256, size=(edge, edge, 3))
            big = np.kron(pattern, np.ones((edge // 4, edge // 4, 1)))
            picture = (0.5 * big + 0.5 * noise).astype(np.uint8)
            Image.fromarray(picture).save(root / name / f"{number}.png")
    return root
