"""Named, versioned folders: names, versions, the link, the lock, and what dead writers leave."""

from __future__ import annotations

import threading
import time

import pytest

from storage.versions import VersionedFolder, VersionErrors
from tests.storage.killing import killed_at


class Bad(Exception): ...


class Unknown(Exception): ...


class NoVersion(Exception): ...


class Busy(Exception): ...


class Broken(Exception): ...


ERRORS = VersionErrors(name=Bad, unknown=Unknown, version=NoVersion, busy=Busy, broken=Broken)


def folder_at(root, *, keep=None, patience=0.0):
    return VersionedFolder(root, kind="thing", errors=ERRORS, keep=keep, patience=patience)


def publish(folder, name, text, *, make_current=True):
    with folder.writing(name):
        return folder.publish(
            name, lambda staged: (staged / "file").write_text(text), make_current=make_current
        )


def test_versions_count_up_and_the_link_names_the_current_one(tmp_path):
    things = folder_at(tmp_path / "things")
    assert things.names() == ()
    assert publish(things, "a", "one") == 1
    assert publish(things, "a", "two", make_current=False) == 2
    assert things.versions("a") == (1, 2)
    assert things.current("a") == 1
    with things.writing("a"):
        things.make_current("a", 2)
    assert things.current("a") == 2
    assert (things.version_folder("a", 2) / "file").read_text() == "two"
    assert things.names() == ("a",)


def test_the_oldest_versions_beyond_keep_go(tmp_path):
    things = folder_at(tmp_path, keep=2)
    for text in ("one", "two", "three"):
        publish(things, "a", text)
    assert things.versions("a") == (2, 3)
    with pytest.raises(ValueError, match="keep must be 1 or more"):
        folder_at(tmp_path, keep=0)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", ".locks", "a" * 65, "집", None])
def test_names_that_are_unsafe_in_a_path_or_a_url(tmp_path, name):
    things = folder_at(tmp_path)
    for use in (things.folder, things.versions, things.current, things.check_name):
        with pytest.raises(Bad, match="name an thing"):
            use(name)
    with pytest.raises(Bad), things.writing(name):
        pass


def test_errors_say_what_there_is(tmp_path):
    things = folder_at(tmp_path)
    with pytest.raises(Unknown, match="no thing is called 'a'; there is none yet"):
        things.versions("a")
    publish(things, "b", "one")
    with pytest.raises(Unknown, match="no thing is called 'a'; there are b"):
        things.version_folder("a", 1)
    with pytest.raises(NoVersion, match="'b' has no version 9; kept are 1"):
        things.version_folder("b", 9)
    with pytest.raises(NoVersion), things.writing("b"):
        things.make_current("b", 9)
    assert things.current("b") == 1


def test_a_link_that_leads_nowhere_is_damage(tmp_path):
    things = folder_at(tmp_path)
    publish(things, "a", "one")
    link = tmp_path / "a" / "current"
    link.unlink()
    link.symlink_to("7")
    with pytest.raises(Broken, match="current version, is missing"):
        things.version_folder("a", 7)
    link.unlink()
    link.symlink_to("elsewhere")
    with pytest.raises(Broken, match="leads to 'elsewhere'"):
        things.current("a")
    assert things.has_current("a")
    with things.writing("a"):
        things.make_current("a", 1)  # this mends it
    assert things.current("a") == 1


def test_a_second_writer_is_refused_at_once_or_waits(tmp_path):
    hasty, patient = folder_at(tmp_path), folder_at(tmp_path, patience=10)
    inside, done = threading.Event(), threading.Event()

    def hold():
        with hasty.writing("a"):
            inside.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(10)
    with pytest.raises(Busy, match="'a' is being changed by someone else"):
        publish(hasty, "a", "one")
    publish(hasty, "b", "another name has another lock")
    threading.Timer(0.2, done.set).start()
    started = time.monotonic()
    publish(patient, "a", "two")
    assert time.monotonic() - started >= 0.1
    holder.join()


def test_an_interrupted_write_publishes_nothing_and_is_swept(tmp_path):
    things = folder_at(tmp_path)

    def fail(staged):
        (staged / "file").write_text("half")
        raise RuntimeError("full")

    with pytest.raises(RuntimeError), things.writing("a"):
        things.publish("a", fail)
    assert things.names() == ()
    publish(things, "a", "one")
    assert sorted(entry.name for entry in (tmp_path / "a").iterdir()) == ["1", "current"]


def test_deleted_means_gone(tmp_path):
    things = folder_at(tmp_path)
    publish(things, "a", "one")
    with things.writing("a"):
        things.delete("a")
    assert things.names() == ()
    assert [entry.name for entry in tmp_path.iterdir()] == [".locks"]
    with pytest.raises(Unknown), things.writing("a"):
        things.delete("a")


def change(things, work):
    if work == "publish":
        publish(things, "a", "third")
    elif work == "roll back":
        with things.writing("a"):
            things.make_current("a", 1)
    else:
        with things.writing("a"):
            things.delete("a")


@pytest.mark.parametrize(
    ("work", "after"), [("publish", "third"), ("roll back", "first"), ("delete", None)]
)
def test_killed_at_any_step_the_current_version_is_whole(tmp_path, work, after):
    outcomes = []
    step, killed = 0, True
    while killed:
        step += 1
        root = tmp_path / str(step)
        things = folder_at(root, keep=2)
        publish(things, "a", "first")
        publish(things, "a", "second")
        killed = killed_at(step, lambda things=things: change(things, work))
        things = folder_at(root, keep=2)  # a new process
        current = things.current("a")
        if current is None:
            outcomes.append(None)
        else:
            outcomes.append((things.version_folder("a", current) / "file").read_text())
        for name in things.names():
            for version in things.versions(name):
                assert (things.version_folder(name, version) / "file").is_file()
        publish(things, "a", "next")  # what the dead writer left does not stand in the way
        left = {entry.name for entry in (root / "a").iterdir()}
        assert left == {str(version) for version in things.versions("a")} | {"current"}
        assert not list(root.glob(".trash*"))
    assert outcomes[0] == "second"
    assert outcomes[-1] == after
    # There is one moment at which the change happens, and it is never undone.
    assert outcomes == sorted(outcomes, key=lambda text: text != "second")
