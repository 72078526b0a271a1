"""The drawings that the embedded model learns from: concepts in several styles, and random views.

Layout of the data folder: ``STYLE.zip`` holds ``ID.png`` (72 x 72 RGBA) for each concept that the
style draws; ``names.jsonl`` gives every ID its name and keywords. twemoji is never trained on.

A view changes what a style changes: the line, the fill, the shading, the grid of pixels, the
background. It keeps what tells concepts apart: there is no mirroring (arrows), and hue moves only
a little (red heart, blue heart).
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

VALIDATION_STYLE = "twemoji"
# Variants of one drawing count less, or one style would count four times.
STYLE_WEIGHT = {
    "fluent-3d": 0.5,
    "fluent-color": 0.5,
    "fluent-flat": 0.5,
    "fluent-high-contrast": 0.8,
}

# uniform(low, high, *shape): one draw an image, shape [B, *shape]
Uniform = Callable[..., torch.Tensor]


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


def sampling_weights(drawings: Drawings, concepts: int) -> torch.Tensor:
    """How often each drawing is drawn: float32 [N].

    A concept with many drawings is drawn more often than one with few, by the square root.
    """
    style = torch.tensor([STYLE_WEIGHT.get(name, 1.0) for name in drawings.styles])
    weight = style[drawings.style]
    total = torch.zeros(concepts).index_add_(0, drawings.concept, weight)
    return weight / total[drawings.concept].sqrt()


def augment(
    rgba: torch.Tensor, size: int, generator: torch.Generator, *, zoom: tuple[float, float]
) -> torch.Tensor:
    """Draw one random view of each image.

    rgba: uint8 [B, 4, H, W], straight alpha; zoom: range of the scale, above 1 shrinks the drawing.

    Returns float32 [B, 3, size, size] in [0, 1].
    """
    device = rgba.device
    batch = rgba.shape[0]

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(batch, *shape, generator=generator, device=device) * (high - low) + low

    def some(probability: float) -> torch.Tensor:
        chosen = torch.rand(batch, generator=generator, device=device) < probability
        return chosen.nonzero().squeeze(1)

    image = rgba.float() / 255
    colour, alpha = image[:, :3], image[:, 3:]
    image = torch.cat([colour * alpha, alpha], dim=1)  # premultiplied: no halo when resampled
    image = _random_affine(image, size, zoom, uniform)
    colour, alpha = image[:, :3], image[:, 3:].clamp(0, 1)

    chosen = some(0.07)  # line drawing: keep the edges, forget the fill
    if len(chosen):
        colour[chosen], alpha[chosen] = _outline(colour[chosen], alpha[chosen])

    view = colour + (1 - alpha) * _background(batch, size, generator, device)
    view = _jitter(view, uniform)

    chosen = some(0.07)
    if len(chosen):
        view[chosen] = _luma(view[chosen]).expand(-1, 3, -1, -1)
    chosen = some(0.08)  # flat: few tones a channel
    if len(chosen):
        levels = uniform(2, 6, 1, 1, 1)[chosen].round()
        view[chosen] = (view[chosen] * levels).round() / levels
    chosen = some(0.07)  # pixel art
    if len(chosen):
        grid = int(torch.randint(12, 33, (1,), generator=generator, device=device))
        small = F.interpolate(view[chosen], size=(grid, grid), mode="area")
        view[chosen] = F.interpolate(small, size=(size, size), mode="nearest")
    chosen = some(0.10)
    if len(chosen):
        view[chosen] = _blur(view[chosen])
    chosen = some(0.10)
    if len(chosen):
        noise = torch.randn(view[chosen].shape, generator=generator, device=device)
        view[chosen] = view[chosen] + 0.06 * noise
    chosen = some(0.07)
    if len(chosen):
        view[chosen] = _cutout(view[chosen], generator)
    return view.clamp(0, 1)


def plain(rgba: torch.Tensor, size: int) -> torch.Tensor:
    """The undisturbed view on white: uint8 [B, 4, H, W] -> float32 [B, 3, size, size]."""
    image = rgba.float() / 255
    view = image[:, :3] * image[:, 3:] + (1 - image[:, 3:])
    resized = F.interpolate(view, size=(size, size), mode="bicubic", antialias=True)
    return resized.clamp(0, 1)


def _random_affine(
    image: torch.Tensor, size: int, zoom: tuple[float, float], uniform: Uniform
) -> torch.Tensor:
    angle = uniform(-1, 1).pow(3) * math.radians(25)  # mostly upright
    scale = torch.exp(uniform(math.log(zoom[0]), math.log(zoom[1])))
    stretch = torch.exp(uniform(-0.14, 0.14))
    shear = uniform(-0.12, 0.12)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack(
        [
            torch.stack([cos * stretch, -sin + shear, uniform(-0.15, 0.15)], dim=1),
            torch.stack([sin, cos / stretch, uniform(-0.15, 0.15)], dim=1),
        ],
        dim=1,
    )  # (B, 2, 3)
    grid = F.affine_grid(theta, [image.shape[0], 4, size, size], align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", align_corners=False)


def _outline(colour: torch.Tensor, alpha: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Black strokes where the drawing or its silhouette changes."""
    both = torch.cat([_luma(colour), alpha], dim=1)
    down = F.pad((both[:, :, 1:] - both[:, :, :-1]).abs(), (0, 0, 0, 1))
    right = F.pad((both[:, :, :, 1:] - both[:, :, :, :-1]).abs(), (0, 1))
    edge = ((down + right).amax(dim=1, keepdim=True) * 4).clamp(0, 1)
    edge = F.max_pool2d(edge, 3, stride=1, padding=1)
    return torch.zeros_like(colour), edge


def _background(
    batch: int, size: int, generator: torch.Generator, device: torch.device
) -> torch.Tensor:
    """White two times in three; else a colour, a gradient or a soft texture: [B, 3, size, size]."""
    kind = torch.rand(batch, 1, 1, 1, generator=generator, device=device)
    coarse = torch.rand(batch, 3, 4, 4, generator=generator, device=device)
    texture = F.interpolate(coarse, size=(size, size), mode="bilinear")
    flat = coarse[:, :, :1, :1].expand(-1, -1, size, size)
    white = torch.ones_like(flat)
    ground = torch.where(kind < 0.65, white, flat)
    ground = torch.where(kind > 0.82, texture, ground)
    return torch.where((kind > 0.65) & (kind < 0.7), torch.zeros_like(flat), ground)


def _jitter(view: torch.Tensor, uniform: Uniform) -> torch.Tensor:
    view = view * uniform(0.7, 1.25, 1, 1, 1) + uniform(-0.08, 0.08, 3, 1, 1)
    mean = view.mean(dim=(1, 2, 3), keepdim=True)
    view = (view - mean) * uniform(0.65, 1.3, 1, 1, 1) + mean
    grey = _luma(view)
    view = grey + (view - grey) * uniform(0.4, 1.5, 1, 1, 1)
    # a small turn of the chroma plane: hue moves by about 12 degrees at most
    turn = uniform(-0.2, 0.2, 1, 1)
    red, green, blue = (view - grey).unbind(dim=1)
    root = math.sqrt(3)
    skew = torch.stack([blue - green, red - blue, green - red], dim=1) / root
    return view + torch.sin(turn)[..., None] * skew


def _luma(view: torch.Tensor) -> torch.Tensor:
    weights = view.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (view * weights).sum(dim=1, keepdim=True)


def _blur(view: torch.Tensor) -> torch.Tensor:
    kernel = view.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0])
    kernel = (kernel[:, None] * kernel[None] / 256).expand(3, 1, 5, 5)
    return F.conv2d(F.pad(view, (2, 2, 2, 2), mode="replicate"), kernel, groups=3)


def _cutout(view: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One grey square a view, up to a third of the side (DeVries and Taylor, 2017)."""
    batch, _, size, _ = view.shape
    device = view.device
    centre = torch.rand(batch, 2, 1, generator=generator, device=device) * size
    half = torch.rand(batch, 1, 1, generator=generator, device=device) * size / 6
    axis = torch.arange(size, device=device).view(1, 1, size)
    inside = (axis - centre).abs() < half  # (B, 2, size)
    mask = inside[:, 0, :, None] & inside[:, 1, None, :]
    return torch.where(mask[:, None], torch.full_like(view, 0.5), view)
