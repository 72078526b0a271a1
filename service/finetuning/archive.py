"""A zip of class folders, looked through before anything is unpacked. Nothing is trusted.

Only names and sizes are read here; an item's bytes are read later, and then no more of them than
its entry announced. Nothing is ever written under a name that stands in the archive.
"""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import BinaryIO

from service.errors import UploadError
from service.finetuning.items import Item, Offered, by_class_folder, is_litter
from service.settings import MEGA

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
            offered.items.append(Item(label, str(path), _reader(archive, paths[path])))
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


def _reader(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            with archive.open(entry) as file:
                return file.read(entry.file_size + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
            raise UploadError(f"can't be unpacked ({error})") from error
        except (NotImplementedError, RuntimeError) as error:  # what zipfile says of odd entries
            raise UploadError(f"can't be unpacked ({error})") from error

    return read
