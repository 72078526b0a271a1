"""The parity guard: every backend is compared with torch in fp32 before it may serve."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from models.encoder import Vectors
from models.image.preprocess import Preprocessor

# ---- Inputs with known answers: what every backend is held against before it may serve.
#
# Pictures are drawn from seeds, so that none travels with the code. They are varied on purpose:
# coloured noise with the spectrum of photographs (amplitude falling as 1/f), flat drawings, line
# art, gradients.


GOLDEN_IMAGES = 8


GOLDEN_TEXTS = (
    "",
    "a",
    "a photo of a cat.",
    "a photo of a cat sleeping on a red sofa.",
    "a bad photo of the mountain bike.",
    "ein Bild von einem Hund",
    "2 + 2 = 4!",
    " ".join(["a very long sentence about many different things"] * 12),
)


_SIDE = 256


# Least cosine between a backend's vectors and the torch fp32 reference, over the golden inputs.
MIN_COSINE = {"fp32": 0.9999, "bf16": 0.999, "fp16": 0.999, "int8": 0.99}


def golden_pixels(preprocessor: Preprocessor) -> Vectors:
    """float32 [8, 3, H, W], as the model's tower takes them."""
    return np.stack([preprocessor(image) for image in synthetic_images(GOLDEN_IMAGES, seed=1)])


def synthetic_images(count: int, *, seed: int) -> list[Image.Image]:
    """RGB pictures of 256 x 256 pixels, the same for the same seed."""
    kinds = (_noise, _drawing, _gradient, _lines)
    generators = (np.random.default_rng([seed, number]) for number in range(count))
    return [kinds[number % len(kinds)](rng) for number, rng in enumerate(generators)]


def min_cosine(vectors: Vectors, reference: Vectors) -> float:
    """The least cosine between rows of unit norm; -1 where a value is not finite."""
    cosines = (vectors.astype(np.float64) * reference).sum(axis=1)
    return float(cosines.min()) if np.isfinite(cosines).all() else -1.0


def _noise(rng: np.random.Generator) -> Image.Image:
    """Colour noise whose amplitude falls as 1/f, as it does in photographs."""
    frequencies = np.hypot(np.fft.fftfreq(_SIDE)[:, None], np.fft.rfftfreq(_SIDE)[None])
    frequencies[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((3, _SIDE, _SIDE))) / frequencies
    planes = np.fft.irfft2(spectrum, s=(_SIDE, _SIDE))
    mixed = np.einsum("ij,jhw->hwi", np.eye(3) + 0.6 * rng.random((3, 3)), planes)
    mixed = (mixed - mixed.mean()) / mixed.std()
    return _image(128 + 30 * rng.standard_normal(3) + mixed * rng.uniform(30, 70))


def _drawing(rng: np.random.Generator) -> Image.Image:
    """Flat shapes on white."""
    image = Image.new("RGB", (_SIDE, _SIDE), "white")
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(2, 7))):
        box = _box(rng)
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        if rng.random() < 0.5:
            draw.ellipse(box, fill=colour)
        else:
            draw.rectangle(box, fill=colour)
    return image


def _gradient(rng: np.random.Generator) -> Image.Image:
    """Two colours that run into each other, with a soft disc before them."""
    y, x = np.mgrid[0:_SIDE, 0:_SIDE] / _SIDE
    angle = rng.uniform(0, 2 * np.pi)
    share = ((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) + 0.7) / 1.4
    disc = 1 / (1 + np.exp((np.hypot(x - rng.random(), y - rng.random()) - 0.25) * 30))
    one, two, three = rng.uniform(0, 255, (3, 3))
    plane = share[..., None] * one + (1 - share[..., None]) * two
    return _image(plane * (1 - disc[..., None]) + disc[..., None] * three)


def _lines(rng: np.random.Generator) -> Image.Image:
    """Dark lines on a light ground."""
    image = Image.new("RGB", (_SIDE, _SIDE), tuple(int(v) for v in rng.integers(180, 256, 3)))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(4, 16))):
        colour = tuple(int(v) for v in rng.integers(0, 120, 3))
        draw.line(_box(rng), fill=colour, width=int(rng.integers(1, 9)))
    return image


def _box(rng: np.random.Generator) -> tuple[int, int, int, int]:
    left, right = sorted(int(v) for v in rng.integers(0, _SIDE, 2))
    top, bottom = sorted(int(v) for v in rng.integers(0, _SIDE, 2))
    return left, top, right, bottom


def _image(values: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8), "RGB")


# ---- A model's facts and its reference answers, as they lie in the cache: read without torch.


_FACTS, _GOLDEN = "facts.json", "golden.npz"


@dataclass(frozen=True)
class Reference:
    """What an encoder tells of its model, and what open_clip in torch fp32 makes of golden inputs.

    dim: length D of its vectors
    logit_scale: factor, already exponentiated; logit_bias: None for a softmax model
    pixels: float32 [8, 3, H, W]; image_vectors: float32 [8, D], their answers
    text_vectors: float32 [8, D], the answers to `golden.GOLDEN_TEXTS`
    """

    dim: int
    logit_scale: float
    logit_bias: float | None
    pixels: Vectors
    image_vectors: Vectors
    text_vectors: Vectors


def write_reference(reference: Reference, folder: Path) -> None:
    """Put it into a folder, as npz and JSON."""
    facts = {key: getattr(reference, key) for key in ("dim", "logit_scale", "logit_bias")}
    (folder / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
    np.savez(
        folder / _GOLDEN,
        pixels=reference.pixels,
        image_vectors=reference.image_vectors,
        text_vectors=reference.text_vectors,
    )


def read_reference(folder: Path) -> Reference:
    """Read what `write_reference` wrote."""
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    with np.load(folder / _GOLDEN, allow_pickle=False) as golden:
        return Reference(**facts, **{name: golden[name] for name in golden.files})
