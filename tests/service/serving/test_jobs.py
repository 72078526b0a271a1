"""The registry by itself; what it looks like from outside is in test_indexes.py."""

from __future__ import annotations

import asyncio

import pytest

from indexer.errors import ConflictError
from models.errors import UserError
from service.errors import QueueFullError, UnknownJobError
from service.http.schemas import JobAnswer
from service.serving.jobs import Job, JobRegistry


async def nothing(job: Job) -> dict:
    return {}


async def until_done(*jobs: Job) -> None:
    for job in jobs:
        while not job.done:
            await job.changed.wait()


def test_the_newest_come_first_and_the_oldest_finished_are_forgotten():
    async def scene():
        registry = JobRegistry()
        jobs = []
        for number in range(250):
            jobs.append(registry.start("build", f"index-{number}", nothing))
            await until_done(jobs[-1])
        assert [job.id for job in registry.list()] == [job.id for job in reversed(jobs[-200:])]
        with pytest.raises(UnknownJobError):
            registry.get(jobs[0].id)
        assert registry.get(jobs[-1].id) is jobs[-1]

    asyncio.run(scene())


def test_two_run_at_once_and_too_many_are_refused():
    async def scene():
        registry = JobRegistry()
        gate = asyncio.Event()

        async def wait(job: Job) -> dict:
            await gate.wait()
            return {}

        jobs = [registry.start("build", f"index-{number}", wait) for number in range(32)]
        await asyncio.sleep(0.05)
        assert [job.state for job in jobs].count("running") == 2
        with pytest.raises(QueueFullError):
            registry.start("build", "one more", wait)
        gate.set()
        await until_done(*jobs)
        assert {job.state for job in jobs} == {"succeeded"}

    asyncio.run(scene())


def test_one_writer_an_index():
    async def scene():
        registry = JobRegistry()
        job = registry.start("build", "things", nothing)
        with pytest.raises(ConflictError, match=job.id):
            registry.start("build", "things", nothing)
        await until_done(job)
        await until_done(registry.start("build", "things", nothing))

    asyncio.run(scene())


def test_errors_of_ours_are_told_and_others_are_not(caplog):
    async def scene():
        registry = JobRegistry()

        async def mistake(job: Job) -> dict:
            raise UserError("say it differently", param="x")

        async def bug(job: Job) -> dict:
            raise RuntimeError("the password is 1234")

        told, hidden = registry.start("build", "a", mistake), registry.start("build", "b", bug)
        await until_done(told, hidden)
        assert JobAnswer.of(told).error.message == "say it differently"
        assert JobAnswer.of(hidden).error.code == "internal_error"
        assert "1234" not in JobAnswer.of(hidden).model_dump_json()
        assert "1234" in caplog.text

    asyncio.run(scene())
