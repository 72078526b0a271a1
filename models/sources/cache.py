"""What is costly to find out or to convert, on disk: checked when read, atomic when written."""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from storage.durable import replace_file, sha256_of, sync_file, sync_folder, write_file

logger = logging.getLogger(__name__)
_MANIFEST = "files.json"


class Cache:
    """A folder of JSON records and of folders with a checksum for each file.

    Processes may share one: what is half-written is never seen, and who comes second wins nothing
    but loses nothing either.
    """

    def __init__(self, root: Path | str | None = None) -> None:
        """root: the folder; None for `~/.cache/clipdex`. One that can't be written is replaced,
        with a warning, by a temporary one for as long as the process lives."""
        self.root = _writable(Path(root or Path.home() / ".cache" / "clipdex"))

    def read_record(self, name: str) -> dict[str, Any] | None:
        """The record of that name, or None where there is none or it is damaged."""
        try:
            record = json.loads((self.root / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def write_record(self, name: str, record: dict[str, Any]) -> None:
        """Write or replace a record."""
        replace_file(self.root / f"{name}.json", json.dumps(record, indent=1).encode())

    def find_folder(self, name: str) -> Path | None:
        """The folder of that name if all its files are as they were written; else None."""
        folder = self.root / name
        try:
            files = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
            sound = all(sha256_of(folder / file) == digest for file, digest in files.items())
        except (OSError, ValueError, AttributeError):
            sound = False
        if sound:
            return folder
        if folder.exists():
            logger.warning("%s is damaged and will be made again", folder)
        return None

    def build_folder(self, name: str, build: Callable[[Path], None]) -> Path:
        """Let `build` fill a folder, then put it into place under its name."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=".draft-"))
        try:
            build(draft)
            files = {path.name: sha256_of(path) for path in sorted(draft.iterdir())}
            for path in draft.iterdir():
                sync_file(path)
            write_file(draft / _MANIFEST, json.dumps(files, indent=1).encode())
            sync_folder(draft)
            _put(draft, target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return target

    def remove_others(self, kept: Path, pattern: str) -> None:
        """Delete the folders beside `kept` whose names match the pattern."""
        for folder in kept.parent.glob(pattern):
            if folder != kept:
                shutil.rmtree(folder, ignore_errors=True)

    def digest(self, path: Path) -> str:
        """sha256 of a file, remembered for as long as its size and time of change stay the same."""
        path = path.resolve()
        stat = path.stat()
        state = {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        name = f"digests/{hashlib.sha256(str(path).encode()).hexdigest()[:24]}"
        record = self.read_record(name)
        if record is not None and {key: record.get(key) for key in state} == state:
            return str(record["sha256"])
        digest = sha256_of(path)
        self.write_record(name, {**state, "sha256": digest})
        return digest


def _put(draft: Path, target: Path) -> None:
    """Rename into place; whatever stood there steps aside first."""
    draft.chmod(0o755)  # mkdtemp makes it private
    for _ in range(10):
        try:
            draft.rename(target)
        except OSError:
            aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=".old-"))
            try:
                target.rename(aside / target.name)
            except FileNotFoundError:
                pass  # another process was quicker to move it
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        else:
            sync_folder(target.parent)
            return
    raise OSError(f"could not put {target} into place")


def _writable(root: Path) -> Path:
    """`root` if files can be made there, else a temporary folder."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            return root
    except OSError as exc:
        fallback = Path(tempfile.mkdtemp(prefix="clipdex-"))
        atexit.register(shutil.rmtree, fallback, ignore_errors=True)
        logger.warning(
            "the cache folder %s cannot be written (%s): models will be converted anew by each"
            " process",
            root,
            exc.strerror,
        )
        return fallback
