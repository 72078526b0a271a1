"""The first stage: what there is to read, in input order, without reading any image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from service.batch.errors import InputError
from service.batch.folders import in_folder, in_remote_folder, matching, matching_remote
from service.batch.item import Item
from service.batch.lists import in_table, in_text
from service.batch.shards import in_shard
from service.batch.storage import asking, file_system, is_remote

_TEXTS = (".txt", ".lst")
_TABLES = (".csv", ".tsv", ".parquet")
_SHARDS = (".tar",)
KINDS = (*_TEXTS, *_TABLES, *_SHARDS)


def list_items(inputs: Iterable[str], *, column: str | None = None) -> Iterator[Item]:
    """Every image that the inputs name.

    inputs: each an image file; a folder, searched with its subfolders, or listed by its
        metadata.csv, .jsonl or .parquet if it is a Hugging Face image folder; a pattern with * or
        ?; a .txt or .lst of places; a .csv, .tsv or .parquet with a column of places; or a .tar
        shard. Paths of this machine, or URLs that fsspec opens.
    column: of tables; None for the first of the usual names that is there

    Raises: InputError, StorageUnreachableError.
    """
    for text in inputs:
        found = _remote(text, column) if is_remote(text) else _local(text, column)
        yield from _some(found, text)


def check_inputs(inputs: Iterable[str], *, column: str | None = None) -> None:
    """Find out early what is missing on this machine: before a model is loaded.

    Raises: InputError.
    """
    for text in inputs:
        if not is_remote(text):
            next(list_items([text], column=column))


def _local(text: str, column: str | None) -> Iterator[Item]:
    path = Path(text)
    if path.is_dir():
        return in_folder(path)
    if path.exists():
        return _by_kind(text, column)
    if any(mark in text for mark in "*?["):
        return _each(matching(text), column)
    raise InputError(f"{text} doesn't exist; check the path", param="input")


def _remote(url: str, column: str | None) -> Iterator[Item]:
    files, path = file_system(url)
    # Patterns first: a "?" in an address of http means something else.
    if any(mark in path for mark in "*[") or ("?" in path and not url.startswith("http")):
        return _each(matching_remote(url), column)
    with asking(url):
        if not url.lower().endswith(KINDS) and files.isdir(path):
            return in_remote_folder(url)
        if not files.exists(path):
            raise InputError(f"{url} doesn't exist; check the address", param="input")
    return _by_kind(url, column)


def _by_kind(place: str, column: str | None) -> Iterator[Item]:
    ending = place[place.rfind(".") :].lower()
    if ending in _TEXTS:
        return in_text(place)
    if ending in _TABLES:
        return in_table(place, column)
    if ending in _SHARDS:
        return in_shard(place)
    return iter([Item(place, place)])


def _each(places: Iterable[str], column: str | None) -> Iterator[Item]:
    """What a pattern matched: lists and shards are opened, all else are images."""
    for place in places:
        yield from _by_kind(place, column)


def _some(items: Iterator[Item], text: str) -> Iterator[Item]:
    number = 0
    for number, item in enumerate(items, 1):  # noqa: B007
        yield item
    if number == 0:
        raise InputError(f"{text} holds no images; name a place that does", param="input")
