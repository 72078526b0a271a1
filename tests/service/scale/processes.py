"""Processes and what they have started, by way of /proc."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`, those that have ended but weren't waited for left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                # "PID (NAME) STATE PARENT ...", where NAME may contain anything
                state, parent = (entry / "stat").read_text().rpartition(") ")[2].split()[:2]
                if int(parent) == pid and state != "Z":
                    found.append(int(entry.name))
    return found


def descendants(pid: int) -> list[int]:
    """Children, and theirs, and so on."""
    return [child for near in children(pid) for child in (near, *descendants(near))]


def title(pid: int) -> str:
    """Its command line, or what it calls itself."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    return ""


def kill(pids: Iterable[int]) -> None:
    """End them without a chance to say goodbye."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
