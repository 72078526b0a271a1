"""Bytes to pixels: whatever an image file holds becomes one upright RGB image, or an error."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from models.errors import UserError

DEFAULT_MAX_PIXELS = 64_000_000
# What Pillow's decoders raise on damaged or hostile files, apart from OSError.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    EOFError,
    OverflowError,
    ZeroDivisionError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class ImageError(UserError):
    """The bytes are no image that can be read whole."""

    code = "invalid_image"


def decode_image(
    data: bytes,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    target: tuple[int, int] | None = None,
) -> Image.Image:
    """Decode a whole image file into an upright RGB image.

    Of an animation the first frame is taken; EXIF orientation is applied; alpha is composited
    on white; every pixel mode that Pillow knows is accepted. The image is fully loaded.

    max_pixels: larger images (width x height) are refused before they are decoded
    target: (height, width) in pixels that the image will be shrunk to; a JPEG much larger than
        that is decoded at a half, a quarter or an eighth of its size, which is quicker

    Raises: ImageError where the bytes are empty, no image, truncated, damaged or too large.
    """
    if not data:
        raise ImageError("the image is empty (0 bytes); send the bytes of an image file")
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError as exc:
        raise ImageError(
            "not an image in a known format; send PNG, JPEG, WebP, AVIF, GIF, TIFF or BMP"
        ) from exc
    except Image.DecompressionBombError as exc:
        raise ImageError(f"the image is too large: {exc}") from exc
    except _DECODER_ERRORS as exc:
        raise ImageError(f"the image's header is damaged ({exc}); send it again") from exc
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(
            f"the image has {width} x {height} pixels, more than the {max_pixels:,} allowed;"
            " send a smaller one"
        )
    try:
        if target is not None:
            _draft(image, target)
        image.load()
        return to_rgb(ImageOps.exif_transpose(image))
    except _DECODER_ERRORS as exc:
        raise ImageError(f"the image is truncated or damaged ({exc}); send it again") from exc


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB; what is transparent becomes white.

    Integer and float modes deeper than 8 bits are scaled down to 0..255, not clipped.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return _from_deep(image)
    if image.mode == "LAB":
        return _from_lab(image)
    if image.mode in ("La", "RGBa"):  # premultiplied: has a way only to its straight sister
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.has_transparency_data:
        straight = image.convert("RGBA")
        canvas = Image.new("RGBA", straight.size, (255, 255, 255, 255))
        return Image.alpha_composite(canvas, straight).convert("RGB")
    return image.convert("RGB")


def _draft(image: Image.Image, target: tuple[int, int]) -> None:
    """Let a JPEG decode at a fraction of its size that is still well above `target`."""
    if image.format != "JPEG":
        return
    edge = 3 * max(target)
    image.draft(None, (edge, edge))


def _from_deep(image: Image.Image) -> Image.Image:
    """16- and 32-bit integers and floats to 8 bits.

    The range is taken from the mode (I;16...) or, where the mode doesn't tell, from the values:
    floats up to 1 are shares, integers up to 255 or 65,535 are 8- or 16-bit, beyond that the
    largest is white.
    """
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.float64)
        full = 65535.0
    else:
        pixels = np.nan_to_num(np.asarray(image, np.float64), posinf=0.0, neginf=0.0)
        top = float(pixels.max(initial=0.0))
        steps = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        full = next((step for step in steps if top <= step), top)
    gray = np.clip(np.rint(pixels * (255.0 / full)), 0, 255).astype(np.uint8)
    return Image.fromarray(gray, "L").convert("RGB")


def _from_lab(image: Image.Image) -> Image.Image:
    """CIELAB to sRGB."""
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    if converted is None:
        raise ValueError("the LAB image could not be converted")
    return converted
