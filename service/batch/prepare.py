"""The decode stage: bytes to what the image tower takes, on any thread, process or machine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from models.encoder import Vectors
from models.images import ImageError, decode_image
from service.batch.errors import ItemError
from service.batch.item import Item
from service.batch.reading import read_item

_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Prepared:
    """An image ready to be encoded, or why it isn't.

    digest: of the file's content; b"" where it couldn't be read
    pixels: float32 [3, H, W]; None where there is an error
    """

    name: str
    digest: bytes
    pixels: Vectors | None
    error: str | None


def prepare(
    item: Item,
    *,
    preprocess: Callable[[Image.Image], Vectors],
    image_size: tuple[int, int],
    max_pixels: int,
) -> Prepared:
    """Read, decode and preprocess one image. A bad one is told, not raised.

    preprocess, image_size: the encoder's; max_pixels: of one image, width x height
    Raises: StorageUnreachableError.
    """
    digest = b""
    try:
        data = read_item(item)
        digest = hashlib.sha256(data).digest()[:_DIGEST_BYTES]
        image = decode_image(data, max_pixels=max_pixels, target=image_size)
        return Prepared(item.name, digest, preprocess(image), None)
    except (ItemError, ImageError) as error:
        return Prepared(item.name, digest, None, error.message)
