"""Killed before any step that touches the disk, the store holds what was published last."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer import CategoryIndex, IndexStore
from tests.indexer.fakes import HashEncoder

ENCODER = HashEncoder(dim=8)
# What Python reports to audit hooks before it changes a folder; fsync isn't among them.
STEPS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.symlink", "shutil.rmtree"}


def index_of(*labels: str) -> CategoryIndex:
    return CategoryIndex.build(labels, ENCODER, templates="plain")


OLD, NEW = index_of("old"), index_of("new")


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Run `work` in a child that is killed before its `step`-th step; False if it has fewer."""
    child = os.fork()
    if child == 0:
        left = step
        fsync = os.fsync

        def count() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if event in STEPS:
                count()

        def counted_fsync(descriptor: int) -> None:
            count()
            fsync(descriptor)

        os.fsync = counted_fsync
        sys.addaudithook(hook)
        try:
            work()
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def publish_twice(root: Path) -> IndexStore:
    store = IndexStore(root, keep=2)
    store.publish("pets", index_of("older"))
    store.publish("pets", OLD)
    return store


def publish(store: IndexStore) -> None:
    store.publish("pets", NEW)


def roll_back(store: IndexStore) -> None:
    store.rollback("pets", 1)


def delete(store: IndexStore) -> None:
    store.delete("pets")


@pytest.mark.parametrize(
    ("work", "before", "after"),
    [(publish, ["old"], ["new"]), (roll_back, ["old"], ["older"]), (delete, ["old"], None)],
)
def test_killed_at_any_step_nothing_published_is_lost(tmp_path, work, before, after):
    outcomes = []
    step = 0
    killed = True
    while killed:
        step += 1
        store = publish_twice(tmp_path / str(step))
        killed = killed_at(step, lambda store=store: work(store))
        # A new process comes up.
        store = IndexStore(tmp_path / str(step), keep=2)
        labels = store.load("pets").labels() if store.names() else None
        outcomes.append(labels)
        assert labels in (before, after)
        # Versions that nobody took out are whole.
        if labels is not None:
            for version in store.versions("pets"):
                store.load("pets", version)
        # Whatever the dead writer left doesn't keep the next one from its work.
        store.publish("pets", index_of("next"))
        assert store.load("pets").labels() == ["next"]
        left = {entry.name for entry in (store.root / "pets").iterdir()}
        assert left == {str(version) for version in store.versions("pets")} | {"current"}
        assert not [entry for entry in store.root.iterdir() if entry.name.startswith(".trash")]
    assert outcomes[0] == before
    assert outcomes[-1] == after
    # There is one moment at which the change happens; it is never undone.
    assert outcomes == sorted(outcomes, key=lambda labels: labels != before)
    assert len(outcomes) > 5


def test_killed_at_any_step_of_the_first_publication(tmp_path):
    step = 0
    killed = True
    while killed:
        step += 1
        store = IndexStore(tmp_path / str(step))
        killed = killed_at(step, lambda store=store: publish(store))
        names = store.names()
        assert names in ((), ("pets",))
        if names:
            assert store.load("pets").labels() == ["new"]
        store.publish("pets", index_of("next"))
        assert store.load("pets").labels() == ["next"]
    assert step > 20
