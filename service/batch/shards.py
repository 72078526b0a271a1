"""Images inside webdataset shards: plain .tar files, read by byte range."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from service.batch.endings import is_image
from service.batch.item import Item
from service.batch.storage import opened


def in_shard(place: str) -> Iterator[Item]:
    """The image files of an uncompressed .tar, in its order, each named SHARD/MEMBER.

    Reads the headers alone; of a remote shard that costs about as much as reading it whole. A
    damaged shard is an item with an error after the images that could be found.

    Raises: InputError, StorageUnreachableError.
    """
    with opened(place) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as shard:
                while (member := shard.next()) is not None:
                    # Kept by tarfile for lookups that nobody makes here.
                    shard.members = []  # type: ignore[attr-defined]
                    if member.isreg() and not member.issparse() and is_image(member.name):
                        name = f"{place}/{member.name}"
                        yield Item(name, place, member.offset_data, member.size)
        except tarfile.TarError as error:
            reason = f"the shard is no plain .tar file, or damaged ({error})"
            yield Item(place, place, error=reason)
