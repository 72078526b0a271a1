from __future__ import annotations

import json
import multiprocessing
import threading

import pytest

from indexer import (
    BrokenIndexError,
    CategoryIndex,
    ConflictError,
    IndexNameError,
    IndexStore,
    StorageError,
    UnknownIndexError,
    UnknownVersionError,
    WrongModelError,
)
from tests.indexer.fakes import HashEncoder

ENCODER = HashEncoder(dim=8)


def index_of(*labels):
    return CategoryIndex.build(labels, ENCODER, templates="plain")


@pytest.fixture
def store(tmp_path):
    return IndexStore(tmp_path / "indexes", keep=3)


def test_versions_count_up_and_old_ones_go(store):
    assert store.names() == ()
    assert [store.publish("pets", index_of(f"v{n}")) for n in range(1, 6)] == [1, 2, 3, 4, 5]
    assert store.versions("pets") == (3, 4, 5)
    assert store.load("pets").labels() == ["v5"]
    assert store.load("pets", 3).labels() == ["v3"]
    info = store.info("pets")
    assert (info.name, info.version, info.versions) == ("pets", 5, (3, 4, 5))
    assert info.manifest.count == 1
    assert store.list() == (info,)


def test_the_layout_on_disk(store):
    store.publish("pets", index_of("cat"))
    folder = store.root / "pets"
    assert (folder / "current").readlink().name == "1"
    assert sorted(path.name for path in (folder / "1").iterdir()) == [
        "categories.parquet",
        "index.faiss",
        "manifest.json",
    ]
    manifest = json.loads((folder / "1" / "manifest.json").read_text())
    assert manifest["model"]["fingerprint"] == ENCODER.fingerprint
    assert set(manifest["files"]) == {"categories.parquet", "index.faiss"}
    assert sorted(path.name for path in folder.iterdir()) == ["1", "current"]


def test_rollback_and_what_follows_it(store):
    for n in (1, 2, 3):
        store.publish("pets", index_of(f"v{n}"))
    store.rollback("pets", 1)
    assert store.load("pets").labels() == ["v1"]
    assert store.publish("pets", index_of("v4")) == 4
    assert store.versions("pets") == (2, 3, 4)
    store.rollback("pets", 2)
    store.rollback("pets", 4)
    assert store.load("pets").labels() == ["v4"]


def test_deleting_leaves_nothing(store):
    store.publish("pets", index_of("cat"))
    store.publish("cars", index_of("bus"))
    store.delete("pets")
    assert store.names() == ("cars",)
    with pytest.raises(UnknownIndexError, match="no index is called 'pets'; there are cars"):
        store.load("pets")
    assert store.publish("pets", index_of("dog")) == 1


def test_what_is_not_there(store):
    with pytest.raises(UnknownIndexError, match="there is none yet"):
        store.load("pets")
    store.publish("pets", index_of("cat"))
    with pytest.raises(UnknownVersionError, match="no version 7; kept are 1"):
        store.load("pets", 7)
    with pytest.raises(UnknownVersionError):
        store.rollback("pets", 7)
    with pytest.raises(UnknownIndexError):
        store.delete("cats")
    with pytest.raises(UnknownIndexError):
        store.rollback("cats", 1)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", ".a", "-a", "a" * 65, "a b", "ä", "a\n", None, 3]
)
def test_names_that_could_lead_elsewhere(store, name):
    for use in (store.load, store.delete, store.current_version, store.info, store.versions):
        with pytest.raises(IndexNameError):
            use(name)
    with pytest.raises(IndexNameError):
        store.publish(name, index_of("cat"))
    assert not store.root.exists()


def test_one_winner_and_a_conflict(store):
    entered, leave = threading.Event(), threading.Event()

    def write():
        with store.writing("pets"):
            entered.set()
            leave.wait(30)

    writer = threading.Thread(target=write)
    writer.start()
    entered.wait(30)
    with pytest.raises(ConflictError, match="being changed by someone else"):
        store.publish("pets", index_of("cat"))
    with pytest.raises(ConflictError):
        store.delete("pets")
    store.publish("cars", index_of("bus"))  # another name is free
    leave.set()
    writer.join()
    assert store.publish("pets", index_of("cat")) == 1


def _hold(root, entered, leave):
    with IndexStore(root).writing("pets"):
        entered.set()
        leave.wait(30)


def test_writers_in_other_processes_are_kept_out_too(store):
    context = multiprocessing.get_context("spawn")
    entered, leave = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(store.root, entered, leave))
    process.start()
    assert entered.wait(60)
    with pytest.raises(ConflictError):
        store.publish("pets", index_of("cat"))
    process.kill()  # a lock dies with its process
    process.join()
    assert store.publish("pets", index_of("cat")) == 1


def test_of_writers_at_the_same_time_every_success_is_a_version(store):
    barrier = threading.Barrier(6)
    won, lost = [], []

    def write(number):
        index = index_of(f"label {number}")
        barrier.wait()
        try:
            won.append(store.publish("pets", index, base=0))
        except ConflictError:
            lost.append(number)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [1]
    assert len(lost) == 5
    assert store.load("pets").labels()[0].startswith("label ")


def test_a_version_made_from_one_no_longer_in_force_is_refused(store):
    store.publish("pets", index_of("cat"))
    store.publish("pets", index_of("dog"), base=1)
    with pytest.raises(ConflictError, match="at version 2 by now, not 1"):
        store.publish("pets", index_of("cow"), base=1)
    assert store.load("pets").labels() == ["dog"]


def test_readers_never_fail_while_versions_come_and_go(store):
    store.publish("pets", index_of("v1", "x"))
    query = ENCODER.encode_texts(["x"])
    stop = threading.Event()
    failures, searches = [], []

    def read():
        while not stop.is_set():
            try:
                loaded = store.load("pets", fingerprint=ENCODER.fingerprint)
                assert loaded.search(query, 1)[0][0].label == "x"
            except Exception as error:
                failures.append(error)
                raise
            searches.append(1)

    readers = [threading.Thread(target=read) for _ in range(8)]
    for reader in readers:
        reader.start()
    for n in range(2, 12):
        store.publish("pets", index_of(f"v{n}", "x"))
    stop.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert len(searches) >= 8


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def swap(path):
    path.write_bytes((path.parent.parent / "1" / path.name).read_bytes())


@pytest.mark.parametrize("file", ["index.faiss", "categories.parquet", "manifest.json"])
@pytest.mark.parametrize("damage", [flip, cut, lambda path: path.unlink()])
def test_damage_is_refused_by_name_and_the_last_good_version_still_loads(store, file, damage):
    store.publish("pets", index_of("cat"))
    store.publish("pets", index_of("cat", "dog"))
    path = store.root / "pets" / "2" / file
    damage(path)
    with pytest.raises(BrokenIndexError) as caught:
        store.load("pets")
    assert str(path) in caught.value.message
    assert store.load("pets", 1).labels() == ["cat"]
    store.rollback("pets", 1)
    assert store.load("pets").labels() == ["cat"]


@pytest.mark.parametrize("file", ["index.faiss", "categories.parquet"])
def test_a_file_of_another_version_is_refused(store, file):
    store.publish("pets", index_of("cat"))
    store.publish("pets", index_of("dog"))
    swap(store.root / "pets" / "2" / file)
    with pytest.raises(BrokenIndexError, match=file):
        store.load("pets")


def test_every_single_bit_of_a_manifest_counts(store):
    store.publish("pets", index_of("cat"))
    path = store.root / "pets" / "1" / "manifest.json"
    whole = path.read_bytes()
    for at in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(BrokenIndexError):
            store.load("pets")
    path.write_bytes(whole)
    assert store.load("pets").labels() == ["cat"]


def test_another_models_index_is_refused_by_name(store):
    store.publish("pets", index_of("cat"))
    with pytest.raises(WrongModelError, match="pets"):
        store.load("pets", fingerprint="c" * 64)


def test_a_later_format_is_refused_with_what_to_do(store):
    store.publish("pets", index_of("cat"))
    path = store.root / "pets" / "1" / "manifest.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "format": 99}))
    with pytest.raises(BrokenIndexError, match="format 99; this version reads format 1"):
        store.load("pets")


def test_a_link_that_leads_nowhere(store):
    store.publish("pets", index_of("cat"))
    link = store.root / "pets" / "current"
    link.unlink()
    link.symlink_to("9")
    with pytest.raises(BrokenIndexError, match="current version, is missing"):
        store.load("pets")
    link.unlink()
    link.symlink_to("elsewhere")
    with pytest.raises(BrokenIndexError, match="no version"):
        store.load("pets")
    store.rollback("pets", 1)


def test_a_version_that_cannot_be_written_leaves_the_old_one(store, monkeypatch):
    store.publish("pets", index_of("cat"))

    def full(*_):
        raise OSError(28, "No space left on device")

    broken = index_of("dog")
    monkeypatch.setattr(broken._table, "write", full)
    with pytest.raises(StorageError, match="No space left"):
        store.publish("pets", broken)
    assert store.load("pets").labels() == ["cat"]
    assert store.publish("pets", index_of("cow")) == 2
    assert sorted(path.name for path in (store.root / "pets").iterdir()) == ["1", "2", "current"]
