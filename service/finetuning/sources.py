"""Labelled images before anyone has looked into them, wherever they come from."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from service.errors import FolderError, UploadError
from service.settings import MEGA

# What archivers and file managers leave behind; nobody means it.
_LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class Item:
    """One file that claims to be an image of a class.

    name: what the user calls it, for messages; read: its bytes, and never more than it announced
    """

    label: str
    name: str
    read: Callable[[], bytes]


@dataclass
class Offered:
    """What an upload holds: items, and what is wrong with the rest, in words.

    unsafe: something among the problems forbids to read any of it
    """

    items: list[Item] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unsafe: bool = False

    def refuse(self, problem: str) -> None:
        """Note something for which nothing of the upload may be read."""
        self.problems.append(problem)
        self.unsafe = True


def is_litter(path: PurePosixPath) -> bool:
    """Whether this is a hidden file or what a file manager left."""
    return any(part.startswith(".") or part in _LITTER for part in path.parts)


def by_class_folder(paths: list[PurePosixPath]) -> Iterator[tuple[PurePosixPath, str | None]]:
    """Each path with its class: the folder it lies in. None where it lies in none, or too deep.

    One folder around all class folders, as archivers like to add, doesn't count.
    """
    tops = {path.parts[0] for path in paths}
    wrapped = len(tops) == 1 and all(len(path.parts) >= 3 for path in paths)
    depth = 3 if wrapped else 2
    for path in paths:
        yield path, path.parts[-2] if len(path.parts) == depth else None


# Pictures hardly shrink; what shrinks more than this, and is large, is there to fill the disk.
_MOST_RATIO = 200
_RATIO_MATTERS = 1 * MEGA  # bytes
_MOST_FILES = 100_000
_MOST_DIRECTORY = 32 * MEGA  # bytes
_LONGEST_END = 22 + 65_535 + 20  # the end's record, the longest comment, a pointer to zip64's


_IN_ZIP64 = 0xFFFFFFFF


_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


_ENCRYPTED = 0x1
_UNIX = 3  # whose archiver writes file modes
_DRIVE = re.compile(r"[A-Za-z]:")


_NESTED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst", ".jar")


def look_through(file: BinaryIO, *, max_bytes: int) -> Offered:
    """What the archive offers.

    Only names and sizes are read here; an item's bytes are read later, and then no more of them
    than its entry announced. Nothing is ever written under a name that stands in the archive.

    max_bytes: all files together, unpacked
    Raises: UploadError if it isn't a zip at all.
    """
    try:
        _check_directory(file)
        archive = zipfile.ZipFile(file)
    except (
        zipfile.BadZipFile,
        struct.error,
        ValueError,
        EOFError,
        OSError,
        NotImplementedError,
    ) as error:
        raise UploadError(
            f"this is no zip archive, or a damaged one ({error}); zip one folder for each class",
            param="archive",
        ) from error
    offered = Offered()
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    _check_sizes(entries, offered, max_bytes)
    for entry in archive.infolist():
        problem = _unsafe(entry)
        if problem is not None:
            offered.refuse(f"{entry.orig_filename!r} {problem}")
    twice = [name for name, count in Counter(e.filename for e in entries).items() if count > 1]
    for name in twice:
        offered.refuse(f"{name!r} is in the archive twice")
    if offered.unsafe:
        return offered
    paths = {PurePosixPath(entry.filename): entry for entry in entries}
    wanted = [path for path in paths if not is_litter(path)]
    for path, label in by_class_folder(sorted(wanted)):
        if label is None:
            offered.problems.append(f"{str(path)!r} doesn't lie in a class folder, directly")
        else:
            offered.items.append(Item(label, str(path), partial(_read_entry, archive, paths[path])))
    return offered


def _check_directory(file: BinaryIO) -> None:
    """Refuse a directory so large that reading it would fill the memory, before it is read.

    Its size stands at the archive's end (APPNOTE.TXT of PKWARE, sections 4.3.14 to 4.3.16).
    """
    length = file.seek(0, 2)
    file.seek(max(0, length - _LONGEST_END))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at >= 0:
        size = struct.unpack_from("<L", tail, at + 12)[0]
        if size == _IN_ZIP64 and tail[at - 20 : at - 16] == b"PK\6\7":
            file.seek(struct.unpack_from("<Q", tail, at - 12)[0])
            size = struct.unpack_from("<Q", file.read(56), 40)[0]
        if size > _MOST_DIRECTORY:
            raise UploadError(
                f"the archive's directory has {size / MEGA:,.0f} MB; send fewer files",
                param="archive",
            )
    file.seek(0)


def _check_sizes(entries: list[zipfile.ZipInfo], offered: Offered, max_bytes: int) -> None:
    if len(entries) > _MOST_FILES:
        offered.refuse(f"the archive holds {len(entries):,} files; the most is {_MOST_FILES:,}")
    total = sum(entry.file_size for entry in entries)
    if total > max_bytes:
        offered.refuse(
            f"the archive unpacks to {total / MEGA:,.0f} MB; the most is {max_bytes / MEGA:,.0f} MB"
        )


def _unsafe(entry: zipfile.ZipInfo) -> str | None:
    name = entry.orig_filename
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or _DRIVE.match(name):
        return "leads out of the archive's folder"
    if not name or any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        return "has control characters in its name"
    mode = entry.external_attr >> 16
    if entry.create_system == _UNIX and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link" if stat.S_ISLNK(mode) else "is neither a file nor a folder"
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if entry.is_dir():
        return None
    if path.suffix.lower() in _NESTED:
        return "is an archive in the archive"
    if entry.compress_type not in _METHODS:
        return "is packed in a way that can't be read"
    if entry.file_size > max(_RATIO_MATTERS, _MOST_RATIO * entry.compress_size):
        return f"is packed to less than 1/{_MOST_RATIO} of its size"
    return None


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """An entry's bytes, at most one more than it announced. Raises: UploadError."""
    try:
        with archive.open(entry) as file:
            return file.read(entry.file_size + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise UploadError(f"can't be unpacked ({error})") from error
    except (NotImplementedError, RuntimeError) as error:  # what zipfile says of odd entries
        raise UploadError(f"can't be unpacked ({error})") from error


def walk_folder(folder: str, roots: Sequence[Path], *, max_bytes: int) -> Offered:
    """What the folder offers. Links aren't followed.

    folder: absolute, or relative to one of the roots; max_bytes: all files together
    Raises: FolderError if it isn't a folder under one of the roots.
    """
    place = _allowed(folder, roots)
    offered = Offered()
    total = 0
    for entry in sorted(place.iterdir()):
        if is_litter(PurePosixPath(entry.name)):
            continue
        if entry.is_symlink():
            offered.refuse(f"{entry.name!r} is a link")
        elif not entry.is_dir():
            offered.problems.append(f"{entry.name!r} doesn't lie in a class folder, directly")
        else:
            for path in sorted(entry.iterdir()):
                name = f"{entry.name}/{path.name}"
                if is_litter(PurePosixPath(path.name)):
                    continue
                if path.is_symlink():
                    offered.refuse(f"{name!r} is a link")
                elif not path.is_file():
                    offered.problems.append(f"{name!r} is no file; classes have no subfolders")
                else:
                    size = path.stat().st_size
                    total += size
                    offered.items.append(Item(entry.name, name, partial(_read_file, path, size)))
    if total > max_bytes:
        offered.refuse(
            f"the folder holds {total / MEGA:,.0f} MB; the most is {max_bytes / MEGA:,.0f} MB"
        )
    return offered


def _allowed(folder: str, roots: Sequence[Path]) -> Path:
    if not roots:
        raise FolderError(
            "this server trains on no folders of its own (CLIPDEX_FINETUNE_ROOTS); upload a zip",
            param="folder",
        )
    for root in roots:
        try:
            place = (root / folder).resolve(strict=True)
        except (OSError, ValueError):
            continue
        if place.is_relative_to(root.resolve()) and place.is_dir():
            return place
    raise FolderError(f"{folder!r} is no folder under an allowed root", param="folder")


def _read_file(path: Path, size: int) -> bytes:
    """A file's bytes, at most one more than `size`; never through a link. Raises: UploadError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(size + 1)
    except OSError as error:
        raise UploadError(f"can't be read ({error.strerror})") from error


_COLUMNS = ("file", "label")


def match_table(data: bytes, name: str, files: Mapping[str, Callable[[], bytes]]) -> Offered:
    """The images that the table names.

    name: of the table's file; it decides by its ending. files: the uploaded ones, by their names
    Raises: UploadError if the table can't be read at all.
    """
    offered = Offered()
    labels: dict[str, str] = {}
    for line, file, label in _rows(data, name):
        where = f"{name} line {line}"
        if not file or not label:
            offered.problems.append(f"{where} lacks a file or a label")
        elif file not in files:
            offered.problems.append(f"{where} names {file!r}, which wasn't uploaded")
        elif labels.setdefault(file, label) != label:
            offered.problems.append(
                f"{file!r} stands under two labels: {labels[file]!r}, {label!r}"
            )
    offered.problems += [f"{file!r} isn't in {name}" for file in files if file not in labels]
    offered.items += [Item(label, file, files[file]) for file, label in sorted(labels.items())]
    return offered


def _rows(data: bytes, name: str) -> Iterator[tuple[int, str, str]]:
    """Line number, file and label of each row."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UploadError(f"{name} isn't UTF-8 ({error})", param="manifest") from error
    if name.lower().endswith(".csv"):
        yield from _csv_rows(text, name)
    elif name.lower().endswith(".jsonl"):
        yield from _json_rows(text, name)
    else:
        raise UploadError(f"{name} must end with .csv or .jsonl", param="manifest")


def _csv_rows(text: str, name: str) -> Iterator[tuple[int, str, str]]:
    reader = csv.DictReader(io.StringIO(text))
    try:
        missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise UploadError(f"{name} has no column {missing[0]!r}", param="manifest")
        for row in reader:
            yield reader.line_num, row["file"] or "", row["label"] or ""
    except csv.Error as error:
        raise UploadError(f"{name} isn't CSV ({error})", param="manifest") from error


def _json_rows(text: str, name: str) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UploadError(f"{name} line {number} isn't JSON", param="manifest") from error
        if not isinstance(row, dict):
            raise UploadError(f"{name} line {number} is no JSON object", param="manifest")
        file, label = row.get("file"), row.get("label")
        yield (
            number,
            file if isinstance(file, str) else "",
            label if isinstance(label, str) else "",
        )
