"""One image to classify, before anything of it has been read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """Where an image's bytes lie.

    name: what its row calls it
    place: a local path, or a URL that fsspec opens
    start, size: the bytes of `place` that are the image; size None for all of it
    error: why there is nothing to read, where the listing found that out
    """

    name: str
    place: str
    start: int = 0
    size: int | None = None
    error: str | None = None
