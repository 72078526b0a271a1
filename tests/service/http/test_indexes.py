"""`/v1/indexes` and `/v1/jobs`."""

from __future__ import annotations

import json
import threading
import time

import pytest

from indexer import CategoryIndex, IndexStore
from tests.service.fakes import ColourEncoder, picture
from tests.service.servers import Running, problem, wait_for


def labels(running: Running, name: str) -> list[str]:
    response = running.client.get(f"/v1/indexes/{name}/categories")
    assert response.status_code == 200, response.text
    return [item["label"] for item in response.json()["categories"]]


def test_put_answers_202_with_a_job_and_its_place(server):
    response = server.client.put("/v1/indexes/put", json={"categories": ["red", "blue"]})
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/jobs/{response.json()['id']}"
    job = server.job(response)
    assert job["state"] == "succeeded"
    assert job["result"] == {"index": "put", "version": 1, "count": 2}
    assert job["progress"]["done"] == job["progress"]["total"] > 0
    assert labels(server, "put") == ["red", "blue"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.txt", "red\nblue\n"),
        ("l.csv", "label,colour\nred,#f00\nblue,#00f\n"),
        ("l.json", '["red", {"label": "blue"}]'),
        ("l.jsonl", '"red"\n{"label": "blue"}\n'),
    ],
)
def test_put_takes_files_in_every_format(server, name, content):
    response = server.client.put(
        "/v1/indexes/files", files={"file": (name, content)}, data={"templates": "plain"}
    )
    assert server.job(response)["state"] == "succeeded"
    assert labels(server, "files") == ["red", "blue"]
    shown = server.client.get("/v1/indexes/files").json()
    assert shown["templates"] == {"name": "plain", "texts": ["{}"]}


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("text/plain", "red\nblue\n"),
        ("text/csv; charset=utf-8", "label\nred\nblue\n"),
        ("application/x-ndjson", '"red"\n"blue"\n'),
    ],
)
def test_put_takes_a_bare_file_by_its_type(server, kind, content):
    response = server.client.put(
        "/v1/indexes/bare?templates=a {}", content=content, headers={"content-type": kind}
    )
    assert server.job(response)["state"] == "succeeded"
    assert labels(server, "bare") == ["red", "blue"]
    assert server.client.get("/v1/indexes/bare").json()["templates"]["texts"] == ["a {}"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "invalid_request"),
        ({"categories": "red"}, 422, "invalid_request"),
        ({"categories": ["red"], "colour": 1}, 422, "invalid_request"),
        ({"categories": []}, 400, "invalid_categories"),
        ({"categories": ["red", "red"]}, 400, "invalid_categories"),
        ({"categories": ["red", ""]}, 400, "invalid_categories"),
        ({"categories": [{"name": "red"}]}, 400, "invalid_categories"),
        ({"categories": ["red"], "templates": "nix"}, 400, "invalid_templates"),
        ({"categories": ["red"], "templates": ["no slot"]}, 400, "invalid_templates"),
    ],
)
def test_put_refuses_before_it_starts_a_job(server, body, status, code):
    problem(server.client.put("/v1/indexes/refused", json=body), status, code)
    problem(server.client.get("/v1/indexes/refused"), 404, "unknown_index")


def test_put_refuses_bodies_it_cannot_read(server):
    def put(**body):
        return server.client.put("/v1/indexes/refused", **body)

    problem(put(content=b"{"), 400, "invalid_request")
    problem(put(content=b"x", headers={"content-type": "image/png"}), 415, "unsupported_media_type")
    problem(put(files={"file": ("l.xls", b"x")}), 400, "invalid_categories")
    problem(put(files={"file": ("l.txt", b"\xff\xfe")}), 400, "invalid_categories")
    problem(put(files={"templates": (None, "plain")}), 422, "invalid_request")
    problem(put(files={"file": ("l.txt", b"red")}, data={"x": "1"}), 422, "invalid_request")
    problem(
        server.client.put("/v1/indexes/.x", json={"categories": ["a"]}), 400, "invalid_index_name"
    )


def test_a_job_that_fails_says_why_and_publishes_nothing(server):
    response = server.client.put("/v1/indexes/failing", json={"categories": ["red " * 40]})
    job = server.job(response)
    assert (job["state"], job["result"]) == ("failed", None)
    assert job["error"]["code"] == "prompt_too_long"
    problem(server.client.get("/v1/indexes/failing"), 404, "unknown_index")


def test_the_list_and_the_versions(server):
    server.build("listed", ["red"])
    server.build("listed", ["red", "blue"])
    listed = {item["name"]: item for item in server.client.get("/v1/indexes").json()["indexes"]}
    assert (listed["listed"]["version"], listed["listed"]["versions"]) == (2, [1, 2])
    assert (listed["listed"]["count"], listed["listed"]["model"]) == (2, "colours")
    versions = server.client.get("/v1/indexes/listed/versions").json()["versions"]
    assert [(item["version"], item["count"], item["current"]) for item in versions] == [
        (1, 1, False),
        (2, 2, True),
    ]
    assert server.client.get("/v1/indexes/listed?version=1").json()["count"] == 1


def test_categories_come_in_pages(server):
    server.build("paged", [f"thing {number}" for number in range(25)])
    page = server.client.get("/v1/indexes/paged/categories?start=20&limit=10").json()
    assert page["total"] == 25
    assert [item["label"] for item in page["categories"]] == [f"thing {n}" for n in range(20, 25)]


class Held:
    """A server whose text tower waits for the test."""

    def __init__(self, folder) -> None:
        self.encoder = ColourEncoder()
        self.running = Running(folder, lambda: self.encoder)
        self.turns = threading.Semaphore(0)

    def __enter__(self) -> Held:
        self.running.__enter__()
        self.running.ready().build("things", ["red", "blue"])
        self.encoder.on_texts = lambda texts: self.turns.acquire(timeout=30)
        return self

    def __exit__(self, *exc) -> None:
        self.release()
        self.running.__exit__(*exc)

    def release(self) -> None:
        self.encoder.on_texts = None
        self.turns.release(1000)


def test_of_two_writers_one_wins_and_the_other_gets_a_409(tmp_path):
    with Held(tmp_path) as held:
        client = held.running.client
        body = {"categories": ["green", "white"]}
        winner = client.put("/v1/indexes/things", json=body)
        assert winner.status_code == 202
        url = "/v1/indexes/things"
        error = problem(client.put(url, json=body), 409, "conflict")
        assert winner.json()["id"] in error["message"]
        problem(client.post(f"{url}/rollback", json={"version": 1}), 409, "conflict")
        problem(client.delete(url), 409, "conflict")
        other = client.put("/v1/indexes/others", json=body)  # another name is nobody's conflict
        held.release()
        assert held.running.job(winner)["result"]["version"] == 2
        assert held.running.job(other)["state"] == "succeeded"


def test_events_tell_the_progress_until_the_end_and_then_close(tmp_path):
    with Held(tmp_path) as held:
        client = held.running.client
        categories = [f"thing {number}" for number in range(200)]
        job = client.put("/v1/indexes/things", json={"categories": categories}).json()
        events = []
        with client.stream("GET", f"/v1/jobs/{job['id']}/events") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            for line in response.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    events.append((name, json.loads(line.removeprefix("data: "))))
                    if len(events) == 1:
                        threading.Thread(target=slowly_release, args=[held]).start()
    names = [name for name, _ in events]
    assert names[-1] == "done"
    assert set(names[:-1]) == {"progress"}
    assert events[-1][1]["state"] == "succeeded"
    told = [event["progress"] for _, event in events if event["progress"]]
    encoded = [progress["done"] for progress in told if progress["stage"] == "encoding"]
    assert encoded == sorted(encoded)
    assert len(set(encoded)) > 1
    assert told[-1]["done"] == told[-1]["total"]


def slowly_release(held: Held) -> None:
    """Let the text tower go on by one part of the list after the other."""
    for _ in range(20):
        held.turns.release()
        time.sleep(0.2)  # longer than events are held back


def test_events_of_a_finished_job_are_its_end(server):
    job = server.build("finished", ["red"])
    response = server.client.get(f"/v1/jobs/{job['id']}/events")
    assert response.text.startswith("event: done\ndata: {")


def test_a_listener_that_leaves_does_not_end_the_job(tmp_path):
    with Held(tmp_path) as held:
        client = held.running.client
        response = client.put("/v1/indexes/things", json={"categories": ["green"]})
        with client.stream("GET", f"{response.headers['location']}/events") as events:
            next(events.iter_lines())
        held.release()
        assert held.running.job(response)["state"] == "succeeded"


def test_stopping_the_server_ends_a_job_and_publishes_nothing(tmp_path):
    held = Held(tmp_path)
    with held.running as running:
        running.ready()
        held.encoder.on_texts = lambda texts: held.turns.acquire(timeout=30)
        response = running.client.put("/v1/indexes/new", json={"categories": ["green"]})
        job = running.services.jobs.get(response.json()["id"])
        wait_for(lambda: job.state == "running")

        def release_when_stopping() -> None:
            wait_for(lambda: job.done)
            held.release()

        releasing = threading.Thread(target=release_when_stopping)
        releasing.start()
    releasing.join()
    assert job.error is not None
    assert job.error.code == "not_ready"
    with Running(tmp_path) as running:
        problem(running.ready().client.get("/v1/indexes/new"), 404, "unknown_index")


def test_patch_encodes_only_what_is_new(tmp_path):
    with Running(tmp_path) as running:
        running.ready().build("things", [f"thing {number}" for number in range(500)])
        encoder = running.services.engine.encoder
        before = len(encoder.texts_seen)
        body = {
            "add": ["red", {"label": "blue", "metadata": {"hex": "#00f"}}],
            "remove": ["thing 7"],
        }
        job = running.job(running.client.patch("/v1/indexes/things", json=body))
        assert job["result"] == {"index": "things", "version": 2, "count": 501}
        new = encoder.texts_seen[before:]
        assert len(new) == 6  # two labels, three templates
        assert all("red" in text or "blue" in text for text in new)
        response = running.client.post("/v1/classify?index=things&top_k=1", content=picture("blue"))
        assert response.json()["results"][0]["matches"][0]["metadata"] == {"hex": "#00f"}
        assert response.json()["index_version"] == 2


def test_building_again_encodes_nothing_that_was_encoded_before(tmp_path):
    with Running(tmp_path) as running:
        running.ready().build("things", ["red", "blue"])
        encoder = running.services.engine.encoder
        before = len(encoder.texts_seen)
        running.build("things", ["blue", "red"])
        assert len(encoder.texts_seen) == before


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"add": [""]}, 400, "invalid_categories"),
        ({"add": ["red", "red"]}, 400, "invalid_categories"),
        ({"add": "red"}, 422, "invalid_request"),
        ({"drop": ["red"]}, 422, "invalid_request"),
    ],
)
def test_patch_refuses_before_it_starts_a_job(server, body, status, code):
    problem(server.client.patch("/v1/indexes/colours", json=body), status, code)


@pytest.mark.parametrize("body", [{}, {"remove": ["nix"]}, {"add": ["red"]}])
def test_a_patch_that_cannot_be_made_fails_its_job(server, body):
    job = server.job(server.client.patch("/v1/indexes/colours", json=body))
    assert job["state"] == "failed"
    assert job["error"]["code"] == "invalid_categories"
    assert server.client.get("/v1/indexes/colours").json()["version"] == 1


def test_patch_of_an_index_that_is_not_there(server):
    response = server.client.patch("/v1/indexes/nix", json={"add": ["red"]})
    problem(response, 404, "unknown_index")


def test_a_patch_loses_to_another_process_that_was_quicker(tmp_path):
    with Held(tmp_path) as held:
        response = held.running.client.patch("/v1/indexes/things", json={"add": ["green"]})
        wait_for(lambda: held.encoder.texts_seen[-1].endswith("green"))
        other = CategoryIndex.build(["white"], ColourEncoder())
        IndexStore(tmp_path / "indexes").publish("things", other)
        held.release()
        job = held.running.job(response)
        assert job["error"]["code"] == "conflict"
        wait_for(lambda: labels(held.running, "things") == ["white"])
