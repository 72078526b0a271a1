"""Bytes to pixels: whatever an image file holds becomes one upright RGB image, or an error."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from models.errors import UserError

DEFAULT_MAX_PIXELS = 64_000_000

# Pillow's names of the formats that are read. Everything else that Pillow could open is refused
# unparsed: EPS starts Ghostscript, and rare formats (PSD, FITS, SPIDER, ...) have rarely tested
# parsers. JPEG includes MPO, which several phones and cameras write.
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "PPM")
ACCEPTED = "PNG, JPEG, WebP, AVIF, GIF, TIFF, BMP or binary PPM"  # FORMATS for people
# What names of such files end in, in lower case.
SUFFIXES = frozenset(
    {
        *(".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png"),
        *(".pnm", ".ppm", ".tif", ".tiff", ".webp"),
    }
)
_BINARY_PPM = (b"P4", b"P5", b"P6")
# Formats that people try, so that the refusal names them: (offset, bytes there, name).
_REFUSED = (
    (0, b"%!PS", "EPS or PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "PSD"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"<svg", "SVG"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
)
# A JPEG is decoded no smaller than this many times the target's longer side. Least cosine to whole
# decoding, over 34 photographs enlarged to 12 MP: 0.99998 (ViT-B/32, random weights), 1.00000
# (pictogram in training). `python -m benchmarks.encoder --data` measures it again.
_MARGIN = 2
_REDUCED = "clipdex_reduced"
_ORIENTATION = 0x0112
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


@dataclass(frozen=True)
class Reduced:
    """What an image that was decoded smaller stands for.

    size: (width, height) of the full image
    box: (left, top, right, bottom), the part of the reduced image that shows it
    shown_by: (width, height) of the reduced image
    """

    size: tuple[int, int]
    box: tuple[float, float, float, float]
    shown_by: tuple[int, int]


class ImageError(UserError):
    """The bytes are no image that can be read whole."""

    code = "invalid_image"


def has_image_suffix(name: str) -> bool:
    """Whether a file's name says that it is an image of a format that is read."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def decode_image(
    data: bytes,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    target: tuple[int, int] | None = None,
) -> Image.Image:
    """Decode a whole image file into an upright RGB image.

    Of an animation the first frame is taken; EXIF orientation is applied; alpha is composited
    on white; every pixel mode that Pillow knows is accepted. The image is fully loaded. Only the
    formats in `FORMATS` are parsed, whatever the file is called.

    max_pixels: larger images (width x height) are refused before they are decoded
    target: (height, width) in pixels that the image will be shrunk to; a JPEG much larger than
        that is decoded at a half, a quarter or an eighth of its size, which is quicker. What the
        returned image shows of which size is told by `reduced_from`.

    Raises: ImageError where the bytes are empty, no image, truncated, damaged or too large.
    """
    if not data:
        raise ImageError("the image is empty (0 bytes); send the bytes of an image file")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as exc:
        raise ImageError(f"{_unaccepted(data)}; send {ACCEPTED}") from exc
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise ImageError(f"the image is too large: {exc}") from exc
    except _DECODER_ERRORS as exc:
        raise ImageError(f"the image's header is damaged ({exc}); send it again") from exc
    if image.format == "PPM" and data[:2] not in _BINARY_PPM:
        # P1 to P3 are numbers in ASCII, which Pillow reads in Python: seconds for a photograph.
        kind = data[:2].decode("ascii", "replace")
        raise ImageError(f"PPM of the kind {kind} is not accepted; send {ACCEPTED} (P4, P5, P6)")
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
        upright = to_rgb(ImageOps.exif_transpose(image))
        if image.size != (width, height):
            upright.info[_REDUCED] = _oriented(image, (width, height))
        return upright
    except _DECODER_ERRORS as exc:
        raise ImageError(f"the image is truncated or damaged ({exc}); send it again") from exc


def _unaccepted(data: bytes) -> str:
    """What to say of bytes that are no image of an accepted format."""
    for offset, magic, name in _REFUSED:
        if data.startswith(magic, offset):
            return f"images in {name} format are not accepted"
    return "not an image in an accepted format"


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


def reduced_from(image: Image.Image) -> Reduced | None:
    """What a reduced image of `decode_image` stands for; None for every other image."""
    reduced = image.info.get(_REDUCED)
    if isinstance(reduced, Reduced) and reduced.shown_by == image.size:
        return reduced
    return None


def _draft(image: Image.Image, target: tuple[int, int]) -> None:
    """Let a JPEG decode at a fraction of its size that is still well above `target`."""
    if image.format != "JPEG":
        return
    edge = _MARGIN * max(target)
    image.draft(None, (edge, edge))


def _oriented(image: Image.Image, stored: tuple[int, int]) -> Reduced:
    """What a reduced JPEG shows, once turned upright.

    image: as stored; stored: (width, height) of the full image. The decoder rounds up: the last
    column and row may stand for less than a whole block, and lie where the orientation takes them.
    """
    scale = round(stored[0] / image.width)
    width, height = stored[0] / scale, stored[1] / scale  # what of the pixels is the image's
    spare_x, spare_y = image.width - width, image.height - height
    orientation = image.getexif().get(_ORIENTATION, 1)
    left = spare_x if orientation in (2, 3, 7, 8) else 0.0
    top = spare_y if orientation in (3, 4, 6, 7) else 0.0
    box, full, shown = (left, top, left + width, top + height), stored, image.size
    if orientation in (5, 6, 7, 8):
        box, full, shown = (
            (box[1], box[0], box[3], box[2]),
            (full[1], full[0]),
            (shown[1], shown[0]),
        )
    return Reduced(size=full, box=box, shown_by=shown)


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
