"""Small real parts for the tests of batch jobs."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from indexer import CategoryIndex, Policy
from models.encoder import Vectors
from service.batch import Classifier, Question
from tests.service.fakes import COLOURS, ColourEncoder


class MoodyEncoder(ColourEncoder):
    """Its vectors depend a little on what else is in the batch, as real ones do."""

    def encode_pixels(self, pixels: Vectors) -> Vectors:
        vectors = super().encode_pixels(pixels)
        mood = np.float32(1e-4 * float(pixels.mean()) + 1e-5 * len(pixels))
        moved = vectors + mood * np.arange(self.dim, dtype=np.float32)
        return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)


def drawing(number: int) -> bytes:
    """A PNG unlike that of any other number."""
    colour = list(COLOURS.values())[number % len(COLOURS)]
    image = Image.new("RGB", (12, 12), colour)
    digest = hashlib.sha256(str(number).encode()).digest()
    for at in range(4):
        image.putpixel((at, 0), (digest[3 * at], digest[3 * at + 1], digest[3 * at + 2]))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def drawings(folder: Path, number: int) -> list[str]:
    """That many different pictures; their paths in the order of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{at:05}.png" for at in range(number)]
    for at, path in enumerate(paths):
        path.write_bytes(drawing(at))
    return [str(path) for path in paths]


def classifier(
    encoder: ColourEncoder | None = None,
    *,
    top_k: int = 2,
    policy: Policy | None = None,
    embeddings: bool = False,
) -> Classifier:
    """Six colours to choose from."""
    encoder = encoder or ColourEncoder()
    categories = CategoryIndex.build(list(COLOURS), encoder, templates="plain")
    question = Question(
        top_k=top_k, policy=policy or Policy(), max_pixels=10_000, embeddings=embeddings
    )
    return Classifier(encoder, categories, question)
