"""Images to the tower's input: open_clip's inference transform, to the bit, without torch.

Source: open_clip 3.3 `transform.py` (`image_transform`, `is_train=False`), which stands on
torchvision's PIL functions; `tests/models/image/test_preprocess.py` holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from models.encoder import Vectors
from models.errors import ModelBrokenError
from models.images import reduced_from, to_rgb

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    # open_clip's "random" is for training; at inference it means bicubic.
    "random": Image.Resampling.BICUBIC,
}
_RESIZE_MODES = ("shortest", "longest", "squash")


@dataclass(frozen=True)
class PreprocessConfig:
    """How a model wants its images; names and defaults are open_clip's.

    size: (height, width) in pixels
    mean, std: per channel, of values in [0, 1]
    resize_mode: "shortest" edge then centre crop, "longest" edge then pad, or "squash"
    fill_color: gray value 0..255 of the padding
    """

    size: tuple[int, int] = (224, 224)
    mean: tuple[float, ...] = OPENAI_MEAN
    std: tuple[float, ...] = OPENAI_STD
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0

    @classmethod
    def from_open_clip(
        cls, preprocess_cfg: Mapping[str, Any], *, image_size: int | Sequence[int]
    ) -> PreprocessConfig:
        """Read open_clip's `preprocess_cfg`; what it leaves out takes open_clip's default.

        image_size: what the image tower was built for; it wins over the config's `size`.

        Raises: ModelBrokenError where a value is none that open_clip knows.
        """
        # "or" as in open_clip, which takes a bare 0 for nothing said.
        given = {key: value for key, value in preprocess_cfg.items() if value}
        config = cls(
            size=_pair(image_size),
            mean=_channels(given.get("mean", OPENAI_MEAN)),
            std=_channels(given.get("std", OPENAI_STD)),
            interpolation=given.get("interpolation", "bicubic"),
            resize_mode=given.get("resize_mode", "shortest"),
            fill_color=given.get("fill_color", 0),
        )
        if config.interpolation not in _FILTERS or config.resize_mode not in _RESIZE_MODES:
            raise ModelBrokenError(
                f"preprocess_cfg asks for interpolation {config.interpolation!r} and resize mode"
                f" {config.resize_mode!r}; known are {', '.join(_FILTERS)} and"
                f" {', '.join(_RESIZE_MODES)}"
            )
        return config

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, in open_clip's words."""
        return asdict(self)


class Preprocessor:
    """One model's transform. Holds no state that changes: safe to call from many threads."""

    def __init__(self, config: PreprocessConfig) -> None:
        self.config = config
        self._filter = _FILTERS[config.interpolation]
        # A pixel has 256 values: each channel's arithmetic is done once, in open_clip's order.
        values = np.arange(256, dtype=np.float32) / np.float32(255)
        mean = np.asarray(config.mean, np.float32)[:, None]
        std = np.asarray(config.std, np.float32)[:, None]
        self._table: NDArray[np.float32] = (values - mean) / std  # (3, 256)

    def __call__(self, image: Image.Image) -> Vectors:
        """Any PIL image -> float32 [3, H, W]; alpha is composited on white."""
        return self.scaled(self.fitted(image))

    def scaled(self, pixels: NDArray[np.uint8]) -> Vectors:
        """The arithmetic on what `fitted` returns: uint8 [3, H, W] -> float32 [3, H, W]."""
        out = np.empty(pixels.shape, np.float32)
        for channel in range(3):
            np.take(self._table[channel], pixels[channel], out=out[channel])
        return out

    def fitted(self, image: Image.Image) -> NDArray[np.uint8]:
        """The same before the arithmetic: uint8 [3, H, W], resized and cropped or padded."""
        return np.asarray(self._fit(to_rgb(image))).transpose(2, 0, 1)

    def _fit(self, image: Image.Image) -> Image.Image:
        """Resize and crop or pad to the config's size."""
        height, width = self.config.size
        mode = self.config.resize_mode
        # A JPEG decoded smaller is treated as the full one: sizes, and so borders, stay the same.
        reduced = reduced_from(image)
        full = reduced.size if reduced else image.size
        box = reduced.box if reduced else None
        kind = self._filter
        if mode == "squash":
            return _resize(image, (height, width), kind, box)
        if mode == "longest":
            image = _resize(image, _keep_ratio(full, (height, width), longest=True), kind, box)
            return _centre(image, (height, width), fill=self.config.fill_color)
        if height == width:
            image = _resize(image, _shortest_edge(full, height), kind, box)
        else:
            # open_clip leaves the filter at its default here, whatever the config says.
            size = _keep_ratio(full, (height, width), longest=False)
            image = _resize(image, size, Image.Resampling.BICUBIC, box)
        return _centre(image, (height, width), fill=0)


def _resize(
    image: Image.Image,
    size: tuple[int, int],
    kind: Image.Resampling,
    box: tuple[float, float, float, float] | None,
) -> Image.Image:
    """To (height, width); box: the part that counts, (left, top, right, bottom), or None."""
    if (image.height, image.width) == size and box is None:
        return image
    return image.resize((size[1], size[0]), kind, box)


def _shortest_edge(full: tuple[int, int], edge: int) -> tuple[int, int]:
    """(height, width) with the shorter `edge`; the longer is cut to whole pixels (torchvision)."""
    width, height = full
    short, long = sorted((width, height))
    other = int(edge * long / short)
    return (other, edge) if width <= height else (edge, other)


def _keep_ratio(full: tuple[int, int], size: tuple[int, int], *, longest: bool) -> tuple[int, int]:
    """(height, width) at which (width, height) just fits into (`longest`) or just covers `size`."""
    width, height = full
    ratios = (height / size[0], width / size[1])
    ratio = max(ratios) if longest else min(ratios)
    # A sliver of an image would round to nothing, on which torchvision fails.
    return max(1, round(height / ratio)), max(1, round(width / ratio))


def _centre(image: Image.Image, size: tuple[int, int], *, fill: int) -> Image.Image:
    """Pad what is missing, crop what is too much, both around the centre."""
    height, width = size
    missing_x, missing_y = max(0, width - image.width), max(0, height - image.height)
    if missing_x or missing_y:
        border = (missing_x // 2, missing_y // 2, (missing_x + 1) // 2, (missing_y + 1) // 2)
        image = ImageOps.expand(image, border=border, fill=(fill,) * 3)
    top = round((image.height - height) / 2.0)
    left = round((image.width - width) / 2.0)
    return image.crop((left, top, left + width, top + height))


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    height, width = value
    return int(height), int(width)


def _channels(value: float | Sequence[float]) -> tuple[float, ...]:
    if isinstance(value, int | float):
        return (float(value),) * 3
    return tuple(float(item) for item in value)
