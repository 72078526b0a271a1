"""Random views of drawings, a batch at a time, on whatever device the batch lies.

What a drawing style changes is what must not matter to the model: the line, the fill, the
shading, the grid of pixels, the background. What tells concepts apart is kept: there is no
mirroring (arrows), and hue moves only a little (red heart, blue heart).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

# uniform(low, high, *shape): one draw an image, shape [B, *shape]
Uniform = Callable[..., torch.Tensor]


def augment(rgba: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """Draw one random view of each image.

    rgba: uint8 [B, 4, H, W], straight alpha. Returns float32 [B, 3, size, size] in [0, 1].
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
    image = _random_affine(image, size, uniform)
    colour, alpha = image[:, :3], image[:, 3:].clamp(0, 1)

    chosen = some(0.12)  # line drawing: keep the edges, forget the fill
    if len(chosen):
        colour[chosen], alpha[chosen] = _outline(colour[chosen], alpha[chosen])

    view = colour + (1 - alpha) * _background(batch, size, generator, device)
    view = _jitter(view, uniform)

    chosen = some(0.15)
    if len(chosen):
        view[chosen] = _luma(view[chosen]).expand(-1, 3, -1, -1)
    chosen = some(0.08)  # flat: few tones a channel
    if len(chosen):
        levels = uniform(2, 6, 1, 1, 1)[chosen].round()
        view[chosen] = (view[chosen] * levels).round() / levels
    chosen = some(0.12)  # pixel art
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
    chosen = some(0.15)
    if len(chosen):
        view[chosen] = _cutout(view[chosen], generator)
    return view.clamp(0, 1)


def plain(rgba: torch.Tensor, size: int) -> torch.Tensor:
    """The undisturbed view on white: uint8 [B, 4, H, W] -> float32 [B, 3, size, size]."""
    image = rgba.float() / 255
    view = image[:, :3] * image[:, 3:] + (1 - image[:, 3:])
    resized = F.interpolate(view, size=(size, size), mode="bicubic", antialias=True)
    return resized.clamp(0, 1)


def _random_affine(image: torch.Tensor, size: int, uniform: Uniform) -> torch.Tensor:
    angle = uniform(-1, 1).pow(3) * math.radians(25)  # mostly upright
    scale = torch.exp(uniform(math.log(0.85), math.log(1.45)))  # > 1 shrinks the drawing
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
    """White half the time; else a colour, a gradient or a soft texture: [B, 3, size, size]."""
    kind = torch.rand(batch, 1, 1, 1, generator=generator, device=device)
    coarse = torch.rand(batch, 3, 4, 4, generator=generator, device=device)
    texture = F.interpolate(coarse, size=(size, size), mode="bilinear")
    flat = coarse[:, :, :1, :1].expand(-1, -1, size, size)
    white = torch.ones_like(flat)
    ground = torch.where(kind < 0.5, white, flat)
    ground = torch.where(kind > 0.75, texture, ground)
    return torch.where((kind > 0.5) & (kind < 0.56), torch.zeros_like(flat), ground)


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
