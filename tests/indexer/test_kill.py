"""Killed before any step that touches the disk, the store holds what was published last."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexer import CategoryIndex, IndexStore
from tests.indexer.fakes import HashEncoder
from tests.storage.killing import killed_at

ENCODER = HashEncoder(dim=8)


def index_of(*labels: str) -> CategoryIndex:
    return CategoryIndex.build(labels, ENCODER, templates="plain")


OLD, NEW = index_of("old"), index_of("new")


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
