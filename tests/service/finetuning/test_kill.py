"""Killed at any moment, server or job, training goes on and ends with the same weights."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.finetuning.shots import COLOUR_JOB, packed, send, shots
from tests.service.servers import wait_for

SERVE = Path(__file__).with_name("colour_serve.py")
EPOCHS = 80
FIELDS = {"method": "head", "recipe": f"epochs: {EPOCHS}\nema: 0.9", "views": 2}


@dataclass
class Served:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    client: httpx.Client

    def job(self, job_id: str) -> dict[str, Any]:
        body: dict[str, Any] = self.client.get(f"/v1/finetunes/{job_id}").json()
        return body

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def children(self) -> list[int]:
        """The processes of its jobs."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().decode().split("\0")
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                if int(parent) == self.process.pid and COLOUR_JOB[1] in words:
                    found.append(int(folder.name))
        return found


@contextlib.contextmanager
def serving(data: Path) -> Iterator[Served]:
    process = subprocess.Popen(
        [sys.executable, str(SERVE), str(data)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        assert url, "the server didn't start"
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            yield Served(process, client)
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def weights(data: Path, adapter: str) -> bytes:
    return (data / "adapters" / adapter / "1" / "weights.safetensors").read_bytes()


def losses(job: dict[str, Any]) -> list[float]:
    return [row["train_loss"] for row in job["history"]]


@pytest.mark.slow
def test_kill_the_job_then_the_server_and_it_ends_with_the_same_weights(tmp_path: Path):
    archive = packed(shots(5))
    with serving(tmp_path) as server:
        whole = send(server.client, archive, name="whole", **FIELDS).json()["id"]
        torn = send(server.client, archive, name="torn", **FIELDS).json()["id"]
        wait_for(lambda: server.job(whole)["finished"], 120)
        expected = server.job(whole)
        assert expected["state"] == "succeeded", expected
        assert expected["attempts"] == 1
        wait_for(lambda: len(server.job(torn)["history"]) >= 5, 60)
        [job_process] = server.children()
        os.kill(job_process, signal.SIGKILL)
        wait_for(lambda: server.job(torn)["attempts"] == 2, 60)
        before = len(server.job(torn)["history"])
        wait_for(lambda: len(server.job(torn)["history"]) > before, 60)
        children = server.children()
        server.kill()
        # Nothing goes on without its server.
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
    assert not (tmp_path / "adapters" / "torn").exists()
    with serving(tmp_path) as server:
        wait_for(lambda: server.job(torn)["finished"], 120)
        job = server.job(torn)
        began = [
            line
            for line in server.client.get(f"/v1/finetunes/{torn}/events").text.splitlines()
            if '"steps"' in line and '"epoch"' not in line
        ]
    assert job["state"] == "succeeded", job
    assert job["attempts"] == 3
    assert len(began) == 3
    assert [int(line.split('"step": ')[1].split(",")[0]) > 0 for line in began] == [
        False,
        True,
        True,
    ]
    assert weights(tmp_path, "torn") == weights(tmp_path, "whole")
    assert losses(job) == losses(expected)
    assert len(job["history"]) == EPOCHS
    same = ("zero_shot_top1", "tuned_top1", "gain", "verdict")
    assert {key: job["result"][key] for key in same} == {
        key: expected["result"][key] for key in same
    }
