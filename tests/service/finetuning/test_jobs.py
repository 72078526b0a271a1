"""Fine-tuning through the API: jobs in processes of their own, watched, cancelled, refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.finetuning.shots import (
    SHOTS,
    begin,
    colour_server,
    ended,
    packed,
    send,
    shots,
)
from tests.service.servers import Running, problem, wait_for


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with colour_server(tmp_path_factory.mktemp("jobs")) as running:
        yield begin(running)


def test_a_zip_becomes_an_adapter_and_its_course_can_be_followed(server: Running):
    server.build("things", [*SHOTS, "apple", "pear"], templates="plain")
    answer = send(
        server.client, packed(shots()), name="words", index="things", method="head", views=1
    )
    assert answer.json()["state"] in ("queued", "running")
    assert answer.json()["options"]["images"] == 18
    url = answer.headers["location"]
    with server.new_client() as own, own.stream("GET", f"{url}/events") as stream:
        lines = list(stream.iter_lines())
    kinds = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    told = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert kinds[0] == "state"
    assert kinds[-2:] == ["state", "done"]
    assert kinds.count("epoch") == 30
    epoch = told[kinds.index("epoch")]
    assert (epoch["epoch"], epoch["epochs"]) == (1, 30)
    numbers = ("train_loss", "train_accuracy", "lr", "eta_seconds")
    assert all(isinstance(epoch[name], float) for name in numbers)
    # So few images are all trained on; the figures come from folds, not from a held-out split.
    assert epoch["val_loss"] is None
    assert epoch["val_accuracy"] is None
    assert epoch["diagnosis"]
    job = ended(server.client, answer)
    assert told[-1] == job
    assert job["state"] == "succeeded", job
    assert [row["epoch"] for row in job["history"]] == list(range(1, 31))
    assert job["history"][-1]["train_loss"] < job["history"][0]["train_loss"]
    assert job["result"]["adapter"] == "words"
    assert job["result"]["version"] == 1
    assert job["result"]["gate"] in ("passed", "refused")
    assert job["result"]["tuned_top1"] > job["result"]["zero_shot_top1"]
    assert (server.settings.adapters / "words" / "1" / "weights.safetensors").exists()
    report = server.client.get(f"{url}/report")
    assert report.headers["content-type"] == "text/html; charset=utf-8"
    assert "<html" in report.text
    assert "in one ranking with 2 other categories" in report.text
    card = server.settings.adapters / "words" / "1" / "MODEL_CARD.md"
    assert "in one ranking with 2 other categories" in card.read_text(encoding="utf-8")
    folder = server.settings.finetunes / job["id"]
    left = ["lock", "log.txt", "report.html"]
    wait_for(lambda: sorted(path.name for path in folder.iterdir()) == left)
    assert server.client.get("/v1/finetunes").json()["finetunes"][0]["id"] == job["id"]
    # A client that was cut off goes on where it was.
    last = max(int(line[4:]) for line in lines if line.startswith("id: "))
    rest = server.client.get(f"{url}/events", headers={"Last-Event-ID": str(last - 1)}).text
    assert [line for line in rest.splitlines() if "event: " in line] == [
        "event: state",
        "event: done",
    ]


def test_cancelled_within_a_step_and_before_it_begins(server: Running):
    archive = packed(shots(4))
    fields = {"method": "head", "recipe": "epochs: 100000", "name": "long", "views": "1"}
    running = send(server.client, archive, **fields)
    waiting = send(server.client, archive, **fields)
    url = running.headers["location"]
    wait_for(lambda: server.client.get(url).json()["history"], 60)
    assert server.client.get(waiting.headers["location"]).json()["state"] == "queued"
    problem(server.client.get(f"{waiting.headers['location']}/report"), 404, "no_report")
    gone = server.client.delete(waiting.headers["location"])
    assert (gone.status_code, gone.json()["state"]) == (202, "cancelled")
    asked = server.client.delete(url)
    assert asked.status_code == 202
    assert asked.json()["state"] in ("cancelling", "cancelled")
    job = ended(server.client, running)
    assert job["state"] == "cancelled"
    assert job["history"][-1]["epoch"] < 100000
    assert not (server.settings.adapters / "long").exists()
    problem(server.client.delete(url), 409, "conflict")
    wait_for(lambda: not (server.settings.finetunes / job["id"] / "images").exists())


def test_what_takes_too_long_or_needs_too_much_is_ended(tmp_path):
    with colour_server(tmp_path, finetune_minutes=0.03) as server:
        begin(server)
        answer = send(server.client, packed(shots(4)), method="head", recipe="epochs: 100000")
        job = ended(server.client, answer)
        assert job["state"] == "failed"
        assert job["error"]["code"] == "job_too_long"


@pytest.mark.parametrize(
    ("program", "attempts", "said"),
    [
        ("raise SystemExit(3)", 1, "exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", 5, "SIGKILL, 5 times"),
    ],
    ids=["by itself", "by a signal, again and again"],
)
def test_a_job_whose_process_dies(tmp_path: Path, program: str, attempts: int, said: str):
    command = (sys.executable, "-c", program)
    with Running(tmp_path, index="colours", job_command=command) as server:
        begin(server)
        job = ended(server.client, send(server.client, packed(shots(2))))
        assert (job["state"], job["attempts"]) == ("failed", attempts)
        assert job["error"]["code"] == "job_died"
        assert said in job["error"]["message"]


def test_a_job_waits_for_a_server_that_runs_jobs_and_needs_its_folder(tmp_path: Path):
    with colour_server(tmp_path, finetune_jobs=0) as server:
        begin(server)
        answer = send(server.client, packed(shots(2)))
        shutil.rmtree(server.services.finetunes.folder(answer.json()["id"]))
    with colour_server(tmp_path) as server:
        server.ready()
        job = ended(server.client, answer)
        assert job["state"] == "failed"
        assert "couldn't be started" in job["error"]["message"]


def test_unknown_jobs_and_options(server: Running):
    for path in ("", "/events", "/report"):
        problem(server.client.get(f"/v1/finetunes/nothing{path}"), 404, "unknown_job")
    problem(server.client.delete("/v1/finetunes/nothing"), 404, "unknown_job")
    archive = packed(shots(2))
    for fields, param in (
        ({"method": "magic"}, "method"),
        ({"name": "../up"}, "name"),
        ({"name": "none"}, "name"),
        ({"val": "1.5"}, "val"),
        ({"colour": "red"}, "colour"),
    ):
        error = problem(send(server.client, archive, **fields), 422, "invalid_request")
        assert error["param"] == param
    problem(send(server.client, archive, index="nowhere"), 404, "unknown_index")
    problem(server.client.post("/v1/finetunes", content=b"x"), 415, "unsupported_media_type")
    problem(
        server.client.post("/v1/finetunes", data={"method": "head"}), 415, "unsupported_media_type"
    )
    error = problem(server.client.post("/v1/finetunes", json={}), 422, "invalid_request")
    assert error["param"] == "folder"
