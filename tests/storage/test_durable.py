"""Files and folders are there whole or not at all, whenever the writer dies."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from storage.durable import (
    append_line,
    publish_folder,
    replace_file,
    sha256_of,
    swap_link,
    write_file,
)
from tests.storage.killing import killed_at

OLD, NEW = b"old" * 1000, b"new" * 1000


def test_a_replaced_file_is_all_old_or_all_new_at_every_step(tmp_path):
    outcomes = []
    step, killed = 0, True
    while killed:
        step += 1
        path = tmp_path / str(step) / "file"
        replace_file(path, OLD)
        killed = killed_at(step, lambda path=path: replace_file(path, NEW))
        outcomes.append(path.read_bytes())
    assert outcomes[0] == OLD
    assert outcomes[-1] == NEW
    assert set(outcomes) == {OLD, NEW}
    assert step > 3


def test_a_published_folder_is_whole_at_every_step(tmp_path):
    step, killed, seen = 0, True, set()
    while killed:
        step += 1
        staged, final = tmp_path / f"staged{step}", tmp_path / f"final{step}"
        staged.mkdir()
        write_file(staged / "a", NEW)
        killed = killed_at(step, lambda staged=staged, final=final: publish_folder(staged, final))
        seen.add(final.exists())
        if final.exists():
            assert (final / "a").read_bytes() == NEW
    assert seen == {False, True}


def test_a_swapped_link_leads_to_the_old_or_the_new_at_every_step(tmp_path):
    step, killed, seen = 0, True, set()
    while killed:
        step += 1
        link = tmp_path / f"link{step}"
        swap_link(link, "old")
        killed = killed_at(step, lambda link=link: swap_link(link, "new"))
        seen.add(str(link.readlink()))
    assert seen == {"old", "new"}


def test_everything_is_synced_before_the_name_is_given(tmp_path, monkeypatch):
    """The order that a power cut asks for: content, then name, then the name's folder."""
    events = []
    fsync, rename = os.fsync, os.replace

    def noted_fsync(descriptor):
        events.append(("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    def noted_replace(source, target, **options):
        events.append(("rename", os.fspath(target)))
        rename(source, target, **options)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    path = tmp_path / "file"
    replace_file(path, NEW)
    kinds = [kind for kind, _ in events]
    assert kinds == ["sync", "rename", "sync"]
    assert events[1:] == [("rename", str(path)), ("sync", str(tmp_path))]


def test_a_failed_replacement_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "file"
    replace_file(path, OLD)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, NEW)
    assert path.read_bytes() == OLD
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_lines_are_added_to_a_log(tmp_path):
    append_line(tmp_path / "log", "one")
    append_line(tmp_path / "log", "두 번째")
    assert (tmp_path / "log").read_text(encoding="utf-8") == "one\n두 번째\n"


def test_the_checksum_is_that_of_the_content(tmp_path):
    write_file(tmp_path / "file", NEW)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(NEW).hexdigest()
