"""Swaps, rollbacks, damage: what answers, and with which version."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from indexer import CategoryIndex, IndexStore
from tests.service.fakes import ColourEncoder, picture
from tests.service.servers import CATEGORIES, Running, problem, wait_for

URL = "/v1/classify?top_k=1&index=things"
NAMES = {"default", "things"}


def build(labels: list[str], *, fingerprint: str = "colours-1") -> CategoryIndex:
    encoder = ColourEncoder(fingerprint=fingerprint)
    return CategoryIndex.build(labels, encoder, templates="plain")


def ask(running: Running, colour: str = "red") -> tuple[str, int]:
    response = running.client.post(URL, content=picture(colour))
    assert response.status_code == 200, response.text
    body = response.json()
    return body["results"][0]["matches"][0]["label"], body["index_version"]


def problem_of_things(running: Running) -> str | None:
    return running.client.get("/v1/indexes/things").json()["problem"]


@pytest.fixture
def running(tmp_path):
    with Running(tmp_path) as started:
        started.ready().build("things", ["red", "blue"], templates="plain")
        yield started


def test_a_swap_under_eight_clients_fails_no_request(running):
    """Every answer is one version's whole: the label and the version number belong together."""
    stop = threading.Event()
    versions = {1: "red"}

    def client(_: int) -> list[tuple[int, int, str]]:
        seen = []
        with running.new_client() as http:
            while not stop.is_set():
                response = http.post(URL, content=picture("red"))
                body = response.json()
                label = body["results"][0]["matches"][0]["label"]
                seen.append((response.status_code, body["index_version"], label))
                time.sleep(0.005)  # leaves the builds some of the processors
        return seen

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(client, number) for number in range(8)]
        for version in range(2, 7):
            name = f"red number {version}"
            versions[version] = name
            running.build("things", [name, "blue"], templates="plain")
        rolled = running.client.post("/v1/indexes/things/rollback", json={"version": 4})
        assert rolled.status_code == 200
        stop.set()
        seen = [answer for future in futures for answer in future.result()]
    assert {status for status, _, _ in seen} == {200}
    assert all(versions[version] == label for _, version, label in seen)
    assert len({version for _, version, _ in seen}) > 3


def test_an_answer_after_the_job_is_done_is_the_new_versions(running):
    assert ask(running) == ("red", 1)
    running.build("things", ["dark red", "blue"], templates="plain")
    assert ask(running) == ("dark red", 2)


def test_what_another_process_publishes_is_picked_up(running, tmp_path):
    assert ask(running) == ("red", 1)
    IndexStore(tmp_path / "indexes").publish("things", build(["light red", "blue"]))
    wait_for(lambda: ask(running) == ("light red", 2))


def test_a_damaged_version_is_refused_by_name_and_the_last_good_one_serves_on(running, tmp_path):
    ask(running)
    IndexStore(tmp_path / "indexes").publish("things", build(["light red", "blue"]))
    flip_a_byte(tmp_path / "indexes/things/2/index.faiss")
    wait_for(lambda: ask(running) and problem_of_things(running))
    shown = running.client.get("/v1/indexes/things").json()
    assert (shown["version"], shown["served_version"]) == (2, 1)
    assert "index.faiss" in shown["problem"]
    assert ask(running) == ("red", 1)


def test_after_a_restart_the_newest_good_version_answers(tmp_path):
    store = IndexStore(tmp_path / "indexes")
    for label in ("red", "light red", "dark red"):
        store.publish("things", build([label, "blue"]))
    flip_a_byte(tmp_path / "indexes/things/3/categories.parquet")
    with Running(tmp_path) as running:
        assert ask(running.ready()) == ("light red", 2)
        assert "categories.parquet" in running.client.get("/v1/indexes/things").json()["problem"]


def test_other_vectors_are_refused_and_the_last_good_version_serves_on(running, tmp_path):
    ask(running)
    other = build(["light red", "blue"], fingerprint="another model")
    IndexStore(tmp_path / "indexes").publish("things", other)
    wait_for(lambda: ask(running) and problem_of_things(running))
    assert ask(running) == ("red", 1)


def test_an_index_with_no_good_version_is_an_error_that_names_the_file(tmp_path):
    IndexStore(tmp_path / "indexes").publish("things", build(["red", "blue"]))
    flip_a_byte(tmp_path / "indexes/things/1/index.faiss")
    with Running(tmp_path) as running:
        response = running.ready().client.post(URL, content=picture())
        assert "index.faiss" in problem(response, 503, "index_broken")["message"]


def test_an_index_of_another_model_is_an_error_that_says_so(tmp_path):
    store = IndexStore(tmp_path / "indexes")
    store.publish("things", build(["red", "blue"], fingerprint="another model"))
    with Running(tmp_path) as running:
        response = running.ready().client.post(URL, content=picture())
        problem(response, 409, "index_of_other_model")


def test_rollback_without_a_number_goes_one_version_back(running):
    running.build("things", ["dark red", "blue"], templates="plain")
    assert running.client.post("/v1/indexes/things/rollback", json={}).json()["version"] == 1
    assert ask(running) == ("red", 1)
    response = running.client.post("/v1/indexes/things/rollback", json={})
    problem(response, 404, "unknown_version")


def test_a_version_that_cannot_answer_is_not_rolled_back_to(running, tmp_path):
    running.build("things", ["dark red", "blue"], templates="plain")
    flip_a_byte(tmp_path / "indexes/things/1/index.faiss")
    response = running.client.post("/v1/indexes/things/rollback", json={"version": 1})
    problem(response, 503, "index_broken")
    assert ask(running) == ("dark red", 2)


def test_a_deleted_index_is_gone(running):
    ask(running)
    assert running.client.delete("/v1/indexes/things").json() == {"name": "things", "deleted": True}
    problem(running.client.post(URL, content=picture()), 404, "unknown_index")
    problem(running.client.delete("/v1/indexes/things"), 404, "unknown_index")
    running.build("things", ["blue", "red"], templates="plain")
    assert ask(running)[0] == "red"


def test_the_default_index_is_built_once(tmp_path):
    with Running(tmp_path) as running:
        running.ready()
        shown = running.client.get("/v1/indexes/default").json()
        assert (shown["version"], shown["count"]) == (1, 409)
    with Running(tmp_path) as running:
        assert running.ready().client.get("/v1/indexes/default").json()["version"] == 1


def test_a_second_model_answers_with_the_default_index_and_leaves_it_as_it_is(tmp_path):
    with Running(tmp_path) as first:
        first.ready().build("default", CATEGORIES)
        first.build("things", ["red", "blue"])
        with Running(tmp_path, lambda: ColourEncoder(fingerprint="another model")) as second:
            second.ready()
            listed = second.client.get("/v1/indexes/default/categories").json()
            assert [item["label"] for item in listed["categories"]] == CATEGORIES
            answer = second.client.post("/v1/classify?top_k=1", content=picture("red")).json()
            assert answer["results"][0]["matches"][0]["label"] == "red"
            # It says at once, and before anybody has asked for them, what its model can't use.
            wait_for(lambda: set(second.client.get("/readyz").json().get("problems", {})) == NAMES)
            for name in NAMES:
                shown = second.client.get(f"/v1/indexes/{name}").json()
                assert "built with" in shown["problem"]
            change = second.job(second.client.patch("/v1/indexes/default", json={"add": ["pink"]}))
            assert change["error"]["code"] == "index_of_other_model"
        versions = first.client.get("/v1/indexes/default/versions").json()["versions"]
        assert [one["version"] for one in versions] == [1, 2]
        assert "problems" not in first.client.get("/readyz").json()
        assert first.client.get("/v1/indexes/default").json()["problem"] is None


def test_readiness_says_what_would_fail(tmp_path):
    with Running(tmp_path, index="things") as running:
        running.loaded().build("things", ["red", "blue"])
        running.ready()
        assert running.client.delete("/v1/indexes/things").status_code == 200
        gone = running.client.get("/readyz")
        assert (gone.status_code, gone.headers["retry-after"]) == (503, "1")
        assert "no index is called 'things'" in gone.json()["reason"]
        IndexStore(tmp_path / "indexes").publish("things", build(["red"], fingerprint="another"))
        wait_for(lambda: "built with" in running.client.get("/readyz").json().get("reason", ""))
        problem(running.client.post(URL, content=picture()), 409, "index_of_other_model")
        assert running.client.get("/readyz").status_code == 503
        running.build("things", ["red", "blue"])
        running.ready()


def written_by_another_version(data: Path) -> None:
    """Make the default index's manifest one that this version can't read."""
    manifest = data / "indexes" / "default" / "1" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 99'))
    assert '"format": 99' in manifest.read_text()


def test_the_bundled_index_of_another_version_is_built_again(tmp_path):
    with Running(tmp_path) as running:
        running.ready()
    written_by_another_version(tmp_path)
    with Running(tmp_path) as running:
        shown = running.ready().client.get("/v1/indexes/default").json()
        assert (shown["version"], shown["count"]) == (2, 409)


def test_a_users_default_index_of_another_version_is_left_alone(tmp_path):
    index = CategoryIndex.build(CATEGORIES, ColourEncoder())
    IndexStore(tmp_path / "indexes").publish("default", index)
    written_by_another_version(tmp_path)
    with Running(tmp_path) as running:
        wait_for(lambda: running.services.failure is not None)
        assert "format 99" in running.services.failure.message


def test_an_index_that_is_named_but_not_there_can_be_built_over_http(tmp_path):
    with Running(tmp_path, index="things") as running:
        wait_for(lambda: "'things'" in running.client.get("/readyz").json()["reason"])
        running.build("things", ["red", "blue"])
        assert running.ready().client.get("/v1/indexes").json()["indexes"][0]["name"] == "things"


def flip_a_byte(path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
