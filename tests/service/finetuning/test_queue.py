"""The queue by itself; what it looks like from outside is in test_jobs.py."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from indexer.errors import ConflictError
from service.errors import JobStoreError, UnknownJobError
from service.finetuning.queue import JobQueue


@pytest.fixture
def queue(tmp_path: Path) -> JobQueue:
    return JobQueue(tmp_path / "data" / "jobs.sqlite3")


def test_first_in_first_out_and_a_place_is_kept(queue: JobQueue):
    for name in "abc":
        queue.add(name, {"name": name})
    assert [record.id for record in queue.records()] == ["c", "b", "a"]
    first = queue.claim()
    assert (first.id, first.state, first.attempts, first.options) == (
        "a",
        "running",
        1,
        {"name": "a"},
    )
    queue.release("a", counts=True)
    assert queue.claim().attempts == 2
    queue.release("a", counts=False)
    assert queue.get("a").attempts == 1
    assert [queue.claim().id for _ in range(3)] == ["a", "b", "c"]
    assert queue.claim() is None
    queue.recover()
    assert {record.state for record in queue.records()} == {"queued"}


def test_how_jobs_end(queue: JobQueue):
    for name in "abcd":
        queue.add(name, {})
    assert queue.cancel("d").state == "cancelled"
    for _ in range(3):
        queue.claim()
    queue.finish("a", "succeeded", result={"version": 1})
    queue.finish("b", "failed", error={"code": "x", "message": "why"})
    asked = queue.cancel("c")
    assert (asked.state, asked.cancelling, asked.done) == ("running", True, False)
    assert queue.finish("c", "cancelled").done
    assert queue.get("a").result == {"version": 1}
    assert queue.get("b").error == {"code": "x", "message": "why"}
    assert queue.finish("a", "failed").state == "succeeded"  # what has ended stays
    with pytest.raises(ConflictError, match="it succeeded"):
        queue.cancel("a")
    with pytest.raises(UnknownJobError):
        queue.get("e")
    queue.release("a", counts=True)
    assert queue.get("a").state == "succeeded"
    assert queue.spend("a", 1.5) == 1.5
    assert queue.spend("a", 1.0) == 2.5


def test_events_are_numbered_for_each_job(queue: JobQueue):
    for name in "ab":
        queue.add(name, {})
        for number in range(3):
            queue.tell(name, "epoch" if number else "state", {"n": number})
    assert [(e.number, e.kind, e.data) for e in queue.events("a")] == [
        (1, "state", {"n": 0}),
        (2, "epoch", {"n": 1}),
        (3, "epoch", {"n": 2}),
    ]
    assert [event.number for event in queue.events("b", after=2)] == [3]
    assert [event.number for event in queue.events("b", kind="state")] == [1]


def test_old_jobs_are_forgotten_with_their_events_once_they_are_told(queue: JobQueue):
    for name in "abcd":
        queue.add(name, {})
        queue.tell(name, "state", {})
        queue.claim()
        queue.finish(name, "succeeded")
    queue.add("e", {})
    assert [record.id for record in queue.untold()] == ["a", "b", "c", "d"]
    for name in "abd":
        queue.mark_told(name)
    assert queue.forget(keep=1) == ["b", "a"]
    assert [record.id for record in queue.records()] == ["e", "d", "c"]
    assert queue.events("a") == []
    assert [event.data for event in queue.events("d")] == [{}, {"state": "succeeded"}]


def test_one_job_is_claimed_once(queue: JobQueue):
    for number in range(20):
        queue.add(str(number), {})
    claimed: list[str] = []

    def claim() -> None:
        other = JobQueue(queue.path)
        while (record := other.claim()) is not None:
            claimed.append(record.id)

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed, key=int) == [str(number) for number in range(20)]


def test_a_damaged_or_foreign_file_is_named(queue: JobQueue):
    queue.add("a", {})
    with sqlite3.connect(queue.path) as db:
        db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(JobStoreError, match="another version"):
        queue.records()
    queue.path.write_bytes(b"no database" * 1000)
    with pytest.raises(JobStoreError, match=r"jobs\.sqlite3"):
        queue.records()
