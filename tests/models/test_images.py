"""Bytes to upright RGB: every mode, damage of every kind, first frames, reduced decoding."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from models.errors import UserError
from models.image.preprocess import PreprocessConfig, Preprocessor
from models.images import (
    FORMATS,
    SUFFIXES,
    ImageError,
    decode_image,
    has_image_suffix,
    reduced_from,
    to_rgb,
)

RED = (220, 30, 40)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo_like(size: tuple[int, int]) -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    waves = np.stack([np.sin(9 * x + 3 * y), np.cos(7 * y), np.sin(5 * x * y)], axis=2)
    return Image.fromarray(((waves + 1) * 127).astype(np.uint8), "RGB")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "PPM"])
def test_formats(kind: str) -> None:
    image = decode_image(encode(Image.new("RGB", (32, 24), RED), kind))
    assert image.mode == "RGB"
    assert image.size == (32, 24)
    assert np.abs(np.asarray(image, int) - RED).max() <= 6


def test_an_mpo_is_a_jpeg() -> None:
    frames = [Image.new("RGB", (32, 24), colour) for colour in (RED, (0, 0, 255))]
    data = encode(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert np.abs(np.subtract(decode_image(data).getpixel((9, 9)), RED)).max() <= 6


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "EPS"),
        (b"\xc5\xd0\xd3\xc6" + bytes(28), "EPS"),
        (b"8BPS\0\x01" + bytes(40), "PSD"),
        (b"SIMPLE  =                    T" + b" " * 60, "FITS"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\0\0\0\x18ftypheic" + bytes(16), "HEIC"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    ],
)
def test_other_formats_are_refused_by_name_and_never_parsed(
    data: bytes, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*arguments: object, **options: object) -> None:
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr("subprocess.check_call", started)
    monkeypatch.setattr("subprocess.Popen", started)
    with pytest.raises(ImageError, match=f"{named}.* format are not accepted; send PNG"):
        decode_image(data)


@pytest.mark.parametrize("kind", ["EPS", "ICO", "TGA", "PCX", "SGI", "JPEG2000", "SPIDER", "DDS"])
def test_formats_that_pillow_writes_and_the_service_does_not_read(kind: str) -> None:
    image = Image.new("F" if kind == "SPIDER" else "RGB", (16, 16))
    with pytest.raises(ImageError, match="accepted"):
        decode_image(encode(image, kind))


@pytest.mark.parametrize(
    "data", [b"P1\n2 1\n1 0\n", b"P2\n2 1\n255\n0 255\n", b"P3\n1 1\n255\n9 9 9\n"]
)
def test_ascii_ppm_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"PPM of the kind P[123] is not accepted"):
        decode_image(data)


def test_binary_ppm_of_all_three_kinds() -> None:
    assert decode_image(b"P4\n8 1\n\xf0").getpixel((7, 0)) == (255, 255, 255)
    assert decode_image(b"P5\n1 1\n255\n\x4d").getpixel((0, 0)) == (77, 77, 77)
    assert decode_image(b"P6\n1 1\n255\n\x01\x02\x03").getpixel((0, 0)) == (1, 2, 3)


def test_the_list_of_suffixes_is_that_of_the_formats() -> None:
    Image.init()
    assert {Image.EXTENSION[suffix] for suffix in SUFFIXES} == set(FORMATS)
    assert has_image_suffix("photos/A.JPG")
    assert not any(map(has_image_suffix, ("a.eps", "a.psd", "a.ico", "a.png.txt", "png")))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_plain_modes_keep_what_they_show(mode: str) -> None:
    image = Image.new("RGB", (6, 5), "white").convert(mode)
    out = to_rgb(image)
    assert out.mode == "RGB"
    assert np.asarray(out).min() >= 254


@pytest.mark.parametrize("mode", [*Image.MODES, "La", "RGBa", "I;16L", "I;16B", "I;16N"])
def test_every_mode_that_pillow_knows(mode: str) -> None:
    out = to_rgb(Image.new(mode, (6, 5)))
    assert (out.mode, out.size) == ("RGB", (6, 5))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa"])
def test_transparent_becomes_white(mode: str) -> None:
    image = Image.new("RGBA", (6, 5), (0, 0, 0, 0))
    image.putpixel((0, 0), (0, 0, 0, 255))
    if mode == "PA":
        other = Image.new("PA", image.size)
        other.putpalette([0, 0, 0])
        other.putalpha(image.getchannel("A"))
    elif mode == "La":
        other = image.convert("LA").convert("La")
    else:
        other = image.convert(mode)
    assert other.mode == mode
    pixels = np.asarray(to_rgb(other))
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert (pixels.reshape(-1, 3)[1:] == 255).all()


def test_half_transparent_is_mixed_with_white() -> None:
    assert to_rgb(Image.new("RGBA", (2, 2), (0, 0, 0, 128))).getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_colour_declared_transparent_becomes_white(mode: str) -> None:
    image = Image.new(mode, (4, 4), 0)
    colour = (0, 0, 0) if mode == "RGB" else 0
    decoded = decode_image(encode(image, "PNG", transparency=colour))
    assert decoded.getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_sixteen_bits_are_scaled_not_clipped(mode: str) -> None:
    order = ">u2" if mode == "I;16B" else "<u2"
    values = np.array([[0, 257 * 100, 65535]], order)
    image = Image.frombytes(mode, (3, 1), values.tobytes())
    assert [to_rgb(image).getpixel((x, 0))[0] for x in range(3)] == [0, 100, 255]


def test_a_sixteen_bit_png() -> None:
    values = np.full((8, 8), 257 * 77, np.uint16)
    assert decode_image(encode(Image.fromarray(values), "PNG")).getpixel((3, 3)) == (77, 77, 77)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 255]], np.int32), [0, 255]),
        (np.array([[0, 65535]], np.int32), [0, 255]),
        (np.array([[500_000, 1_000_000]], np.int32), [128, 255]),
        (np.array([[-5, 10]], np.int32), [0, 10]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[np.nan, np.inf, 1.0]], np.float32), [0, 0, 255]),
        (np.zeros((1, 2), np.float32), [0, 0]),
    ],
)
def test_deep_modes_find_their_range(values: np.ndarray, expected: list[int]) -> None:
    out = to_rgb(Image.fromarray(values))
    assert [out.getpixel((x, 0))[0] for x in range(out.width)] == expected


def test_lab() -> None:
    transform = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = ImageCms.applyTransform(Image.new("RGB", (4, 4), RED), transform)
    assert lab.mode == "LAB"
    assert np.abs(np.subtract(to_rgb(lab).getpixel((0, 0)), RED)).max() <= 3


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in (RED, (0, 0, 255))]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(np.subtract(decode_image(data).getpixel((9, 9)), RED)).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    upright = Image.new("RGB", (40, 20), "white")
    upright.paste((0, 0, 0), (0, 0, 20, 10))  # the upper left quarter is black
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode_image(encode(stored, "JPEG", exif=exif, quality=95))
    assert image.size == (40, 20)
    assert image.getpixel((5, 3))[0] < 40
    assert image.getpixel((30, 15))[0] > 215


@pytest.mark.parametrize(
    "data", [b"", b"x", b"not an image at all" * 50, b"%PDF-1.7\n", b"\0" * 99]
)
def test_no_image(data: bytes) -> None:
    with pytest.raises(ImageError):
        decode_image(data)


def test_an_image_error_is_the_users() -> None:
    assert issubclass(ImageError, UserError)
    assert ImageError.code == "invalid_image"


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it then fails on
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated(kind: str, share: float) -> None:
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    data = encode(photo_like((160, 120)), kind, **options)
    with pytest.raises(ImageError):
        decode_image(data[: int(len(data) * share)])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "ICO", "PPM"]
)
def test_damaged_bytes_give_an_image_or_an_image_error(kind: str) -> None:
    """A decoder's own exceptions never get through, whatever a file's bytes are."""
    data = encode(photo_like((48, 32)), kind)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 6):
            damaged[position] = rng.integers(0, 256)
        try:
            assert decode_image(bytes(damaged)).mode == "RGB"
        except ImageError:
            refused += 1
    assert refused > 0 or kind in ("BMP", "PPM")


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    header = b"\x89PNG\r\n\x1a\n"
    for width, height in ((60_000, 60_000), (11_000, 11_000), (9000, 9000)):
        body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
        chunk += struct.pack(">I", 1000) + b"IDAT" + b"\0" * 1000
        with pytest.raises(ImageError, match=r"too large|more than"):
            decode_image(header + chunk)
    data = encode(Image.new("RGB", (100, 100)), "PNG")
    assert decode_image(data, max_pixels=10_000).size == (100, 100)
    with pytest.raises(ImageError, match="100 x 100 pixels, more than the 9,999 allowed"):
        decode_image(data, max_pixels=9_999)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
def test_a_large_jpeg_is_decoded_smaller_and_lands_on_the_same_pixels(
    orientation: int, resize_mode: str
) -> None:
    """1,523 x 1,009 at an eighth is 190.4 x 126.1: the last blocks are not whole."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photo_like((1523, 1009)), "JPEG", quality=92, exif=exif)
    full, reduced = decode_image(data), decode_image(data, target=(48, 48))
    assert reduced.size == ((191, 127) if orientation < 5 else (127, 191))
    stands_for = reduced_from(reduced)
    assert stands_for is not None
    assert stands_for.size == full.size
    preprocess = Preprocessor(
        PreprocessConfig((48, 48), (0.0,) * 3, (1.0,) * 3, resize_mode=resize_mode)
    )
    difference = np.abs(preprocess(full) - preprocess(reduced))
    assert difference.mean() < 0.002
    assert difference.max() < 0.03


def test_a_target_near_the_size_leaves_the_decoding_whole() -> None:
    data = encode(photo_like((1600, 1200)), "JPEG")
    image = decode_image(data, target=(700, 700))
    assert image.size == (1600, 1200)
    assert reduced_from(image) is None


def test_a_reduced_image_that_was_cropped_stands_for_itself() -> None:
    reduced = decode_image(encode(photo_like((1600, 1200)), "JPEG"), target=(48, 48))
    assert reduced_from(reduced) is not None
    assert reduced_from(reduced.crop((0, 0, 50, 50))) is None


def test_other_formats_ignore_the_target() -> None:
    data = encode(photo_like((800, 600)), "PNG")
    assert decode_image(data, target=(16, 16)).size == (800, 600)
