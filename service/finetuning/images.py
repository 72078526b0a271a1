"""What was offered, checked as a whole and laid out as class folders for training.

Every offender is named, not just the first: unreadable images, a class with one image, one class
only, an image under two labels, labels that differ by case or blanks only.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from models.images import SUFFIXES, ImageError, decode_image, has_image_suffix
from service.errors import UploadError
from service.finetuning.sources import Item, Offered

_NAMED = 500  # offenders in one message
_ODD = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_LABEL = 200  # bytes; file systems allow 255
_LONGEST = 100  # characters of a file's name that are kept


def lay_out(offered: Offered, target: Path, *, max_pixels: int, skip_bad: bool) -> int:
    """Write the images into class folders under `target`, an empty folder; returns their number.

    skip_bad: leave out what can't be read instead of refusing it all
    Raises: UploadError naming every offender; nothing is worth keeping then.
    """
    if offered.unsafe:
        raise _refusal(offered.problems)
    problems = [] if skip_bad else list(offered.problems)
    labels = {item.label for item in offered.items}
    problems += _label_problems(labels)
    safe = [item for item in offered.items if _label_problem(item.label) is None]
    seen: dict[str, Item] = {}  # by the pixels' digest
    clashes: dict[str, list[Item]] = defaultdict(list)
    different: dict[str, set[str]] = {label: set() for label in sorted(labels)}
    for number, item in enumerate(safe):
        try:
            digest, data = _read(item, max_pixels)
        except (ImageError, UploadError) as error:
            if not skip_bad:
                problems.append(f"{item.name!r}: {error.message}")
            continue
        first = seen.setdefault(digest, item)
        if first.label != item.label:
            clashes[digest].append(item)
        different[item.label].add(digest)
        _write(target / item.label, number, item, data)
    for digest, items in clashes.items():
        names = ", ".join(repr(item.name) for item in (seen[digest], *items))
        problems.append(f"the same image under two labels: {names}")
    if len(labels) < 2:
        only = f"only {next(iter(labels))!r}" if labels else "none"
        problems.append(f"at least two classes are needed, there is {only}")
    for label, digests in different.items():
        if len(digests) < 2 and _label_problem(label) is None:
            said = "one image" if digests else "no image that can be read"
            problems.append(f"the class {label!r} has {said}; each needs two different ones")
    if problems:
        raise _refusal(problems)
    return sum(1 for _ in target.glob("*/*"))


def _read(item: Item, max_pixels: int) -> tuple[str, bytes]:
    if not has_image_suffix(item.name):
        raise ImageError("not an image file; use " + ", ".join(sorted(SUFFIXES)))
    data = item.read()
    image = decode_image(data, max_pixels=max_pixels)
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest(), data


def _write(folder: Path, number: int, item: Item, data: bytes) -> None:
    """Under a name that is ours, unique, in the order of the upload, and still to be recognised."""
    folder.mkdir(parents=True, exist_ok=True)
    path = PurePosixPath(item.name)
    stem = _ODD.sub("_", path.stem)[:_LONGEST]
    (folder / f"{number:06d}-{stem}{path.suffix.lower()}").write_bytes(data)


def _label_problems(labels: Iterable[str]) -> list[str]:
    problems = []
    alike: dict[str, list[str]] = defaultdict(list)
    for label in sorted(labels):
        alike[" ".join(label.split()).casefold()].append(label)
        problem = _label_problem(label)
        if problem is not None:
            problems.append(f"the label {label!r} {problem}")
    for same in alike.values():
        if len(same) > 1:
            named = ", ".join(map(repr, same))
            problems.append(f"labels that differ by case or blanks only: {named}")
    return problems


def _label_problem(label: str) -> str | None:
    """What keeps a label from naming a category and, for training, a folder."""
    if not label.strip():
        return "is blank"
    if label != label.strip():
        return "begins or ends with a blank"
    if label.startswith(".") or "/" in label or "\\" in label:
        return "may not begin with a dot or hold a slash"
    if not label.isprintable():
        return "has characters that can't be printed"
    if len(label.encode()) > _LONGEST_LABEL:
        return f"is longer than {_LONGEST_LABEL} bytes"
    return None


def _refusal(problems: list[str]) -> UploadError:
    named = "; ".join(problems[:_NAMED])
    more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return UploadError(f"{count} with the images: {named}{more}", param="images")
