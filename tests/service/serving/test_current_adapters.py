"""Adapters in the running service: promoted, rolled back, refused, and swapped under load."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.serving.assignments import Assignments
from tests.service.fakes import ColourEncoder
from tests.service.finetuning.shots import SHOTS, shot
from tests.service.servers import Running, problem, wait_for
from tests.service.serving.making import WORDS, make_adapter
from tests.service.serving.sabotage import publish_turned
from training.adapters.store import AdapterStore

PICTURE = {label: shot(colour, 99) for label, colour in SHOTS.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with an adapter "words" of two versions, and other adapters; copied, not used.

    "odd" is for another model.
    """
    data, scratch = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("scratch")
    assert make_adapter(data, scratch) == 1
    assert make_adapter(data, scratch, method="gda") == 2
    make_adapter(data, scratch, name="odd", encoder=ColourEncoder(fingerprint="another"))
    return data


@pytest.fixture
def server(made: Path, tmp_path: Path) -> Iterator[Running]:
    shutil.copytree(made, tmp_path / "data")
    with Running(tmp_path / "data", index="words") as running:
        running.loaded().build("words", WORDS, templates="plain")
        yield running.ready()


def ask(server: Running, label: str = "zorp", **fields: Any) -> dict[str, Any]:
    """The whole answer for one picture, all categories ranked."""
    client = server.client
    answer = client.post("/v1/classify", params={"top_k": 10, **fields}, content=PICTURE[label])
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def matches(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {match["label"]: match for match in body["results"][0]["matches"]}


def best_taught(body: dict[str, Any]) -> str:
    """The best of the categories that were taught."""
    return next(label for label in matches(body) if label in SHOTS)


def promote(server: Running, name: str = "words", **body: Any):
    return server.client.post(f"/v1/adapters/{name}/promote", json=body)


def roll_back(server: Running, name: str = "words", **body: Any):
    return server.client.post(f"/v1/adapters/{name}/rollback", json=body)


def test_tuned_and_zero_shot_categories_rank_together(server: Running):
    zero, tuned = ask(server), ask(server, adapter="words@1")
    assert (zero["adapter"], tuned["adapter"]) == (None, "words@1")
    before, after = matches(zero), matches(tuned)
    assert set(before) == set(after) == set(WORDS)
    for label in ("yellow", "white"):
        assert after[label]["score"] == before[label]["score"]
    assert after["zorp"]["score"] > before["zorp"]["score"]
    assert sum(match["probability"] for match in after.values()) == pytest.approx(1, abs=1e-6)
    scores = [match["score"] for match in tuned["results"][0]["matches"]]
    assert scores == sorted(scores, reverse=True)
    for label in SHOTS:
        assert best_taught(ask(server, label, adapter="words@1")) == label


def test_promoted_it_answers_by_default_and_rolled_back_zero_shot_does(server: Running):
    zero = ask(server)
    first = promote(server, version=1)
    assert first.json() == {"name": "words", "version": 1, "indexes": ["words"]}, first.text
    one = ask(server)
    assert one == ask(server, adapter="words") == ask(server, adapter="words@1")
    assert ask(server, adapter="none") == zero
    assert promote(server).json()["version"] == 2  # the newest
    two = ask(server)
    assert two["adapter"] == "words@2"
    assert roll_back(server).json()["version"] == 1
    assert ask(server) == one
    assert roll_back(server).json() == {"name": "words", "version": None, "indexes": ["words"]}
    assert ask(server) == zero
    problem(roll_back(server), 404, "unknown_adapter")
    assert promote(server, version=2).status_code == 200
    assert ask(server) == two


def test_under_eight_clients_no_request_fails_and_each_answer_is_of_one_version(server: Running):
    expected = {
        ref: ask(server, adapter=ref or "none")["results"] for ref in (None, "words@1", "words@2")
    }
    assert expected[None] != expected["words@1"] != expected["words@2"]
    stop, answers, failures = threading.Event(), [], []

    def client() -> None:
        with server.new_client() as own:
            while not stop.is_set():
                answer = own.post("/v1/classify", params={"top_k": 10}, content=PICTURE["zorp"])
                if answer.status_code == 200:
                    answers.append((answer.json()["adapter"], answer.json()["results"]))
                else:
                    failures.append(answer.text)

    clients = [threading.Thread(target=client) for _ in range(8)]
    for thread in clients:
        thread.start()
    seen_after = []
    try:
        for _ in range(4):
            for move in (
                lambda: promote(server, version=1),
                lambda: promote(server, version=2),
                lambda: roll_back(server),
                lambda: roll_back(server),
            ):
                done = move()
                assert done.status_code == 200, done.text
                version = done.json()["version"]
                # Whoever asks after the move has been confirmed gets what it moved to.
                seen_after.append((version and f"words@{version}", ask(server)["adapter"]))
    finally:
        stop.set()
        for thread in clients:
            thread.join(30)
    assert failures == []
    assert all(wanted == seen for wanted, seen in seen_after)
    assert {ref for ref, _ in answers} == set(expected)
    assert all(results == expected[ref] for ref, results in answers)


def test_the_gate_refuses_and_force_is_logged(server: Running, tmp_path: Path):
    make_adapter(server.settings.data, tmp_path, name="bad")
    publish_turned(AdapterStore(server.settings.adapters), "bad", ColourEncoder())
    error = problem(promote(server, "bad"), 409, "gate_refused")
    assert "gain" in error["message"]
    assert ask(server)["adapter"] is None
    assert promote(server, "bad", force=True).status_code == 200
    assert ask(server)["adapter"] == "bad@2"
    log = server.client.get("/v1/adapters/bad").json()["log"]
    assert log[-1]["action"] == "promote"
    assert any("gain" in failure for failure in log[-1]["forced_past"])


def test_of_another_model_or_damaged_or_unknown(server: Running):
    problem(promote(server, "odd"), 409, "fingerprint_mismatch")
    params = {"adapter": "odd@1"}
    url = "/v1/classify"
    client = server.client
    problem(client.post(url, params=params, content=PICTURE["zorp"]), 409, "fingerprint_mismatch")
    weights = server.settings.adapters / "words" / "2" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    problem(promote(server, version=2), 503, "adapter_broken")
    for name in ("nobody", "words@7"):
        answer = client.post(url, params={"adapter": name}, content=PICTURE["zorp"])
        problem(answer, 404, "unknown_adapter")
    answer = client.post(url, params={"adapter": "../up"}, content=PICTURE["zorp"])
    assert problem(answer, 422, "invalid_request")["param"] == "adapter"
    answer = client.post(url, params={"adapter": "words"}, content=PICTURE["zorp"])
    assert "not been promoted" in problem(answer, 404, "unknown_adapter")["message"]
    fields = {"adapter": "words@1", "labels": "red,blue"}
    problem(client.post(url, params=fields, content=PICTURE["zorp"]), 422, "invalid_request")
    fields = {"adapter": "words@1", "precision": 0.9}
    answer = client.post(url, params=fields, content=PICTURE["zorp"])
    assert problem(answer, 422, "invalid_request")["param"] == "precision"
    problem(promote(server, "nobody"), 404, "unknown_adapter")
    problem(promote(server, version=1, index="nowhere"), 404, "unknown_index")
    problem(server.client.get("/v1/adapters/nobody"), 404, "unknown_adapter")
    assert ask(server)["adapter"] is None


def test_listed_shown_and_deleted(server: Running):
    listed = server.client.get("/v1/adapters").json()["adapters"]
    assert [(item["name"], item["live"], item["versions"]) for item in listed] == [
        ("odd", None, [1]),
        ("words", None, [1, 2]),
    ]
    promote(server, version=1)
    shown = server.client.get("/v1/adapters/words").json()
    assert (shown["live"], shown["indexes"], shown["made_for"]) == (1, ["words"], "words")
    assert shown["changes"] == "head"
    assert shown["classes"] == sorted(SHOTS)
    assert shown["metrics"]["tuned"]["top1"] > shown["metrics"]["zero_shot"]["top1"]
    assert shown["problem"] is None
    assert server.client.get("/v1/adapters/words?version=2").json()["kind"] == "linear"
    problem(server.client.get("/v1/adapters/words?version=3"), 404, "unknown_adapter")
    assert server.client.get("/v1/indexes/words").json()["adapter"] == "words@1"
    error = problem(server.client.delete("/v1/adapters/words"), 409, "adapter_in_use")
    assert "words" in error["message"]
    roll_back(server)
    assert server.client.delete("/v1/adapters/words").json() == {"name": "words", "deleted": True}
    problem(server.client.delete("/v1/adapters/words"), 404, "unknown_adapter")
    assert not (server.settings.adapters / "words").exists()


def test_a_deleted_index_takes_its_adapter_out_of_force(server: Running):
    promote(server, version=1)
    assert ask(server)["adapter"] == "words@1"
    assert server.client.delete("/v1/indexes/words").status_code == 200
    assert server.client.get("/v1/adapters/words").json()["indexes"] == []
    server.build("words", WORDS, templates="plain")
    assert ask(server)["adapter"] is None


def test_the_index_may_change_under_it(server: Running):
    promote(server, version=1)
    server.job(server.client.patch("/v1/indexes/words", json={"add": ["black"]}))
    wait_for(lambda: "black" in matches(ask(server)))
    body = ask(server)
    assert (body["adapter"], body["index_version"]) == ("words@1", 2)
    assert best_taught(body) == "zorp"


def test_what_the_command_line_promotes_is_noticed(server: Running):
    store = AdapterStore(server.settings.adapters)
    store.promote("words", 2, fingerprint="colours-1", force=True)
    Assignments(server.settings.adapters).assign("words", "words")
    wait_for(lambda: ask(server)["adapter"] == "words@2")
    Assignments(server.settings.adapters).unassign("words")
    wait_for(lambda: ask(server)["adapter"] is None)


def test_classes_that_an_index_lacks_join_it(server: Running):
    server.build("few", ["zorp", "white"], templates="plain")
    zero = matches(ask(server, index="few"))
    both = matches(ask(server, index="few", adapter="words@1"))
    assert set(zero) == {"zorp", "white"}
    assert set(both) == {*SHOTS, "white"}
    assert both["white"]["score"] == zero["white"]["score"]


def test_it_answers_after_a_restart_and_not_for_another_model(server: Running, tmp_path: Path):
    promote(server, version=1)
    before = ask(server)
    data = tmp_path / "again"
    shutil.copytree(server.settings.data, data, symlinks=True)
    with Running(data, index="words") as again:
        again.ready()
        assert ask(again) == before
    with Running(data, lambda: ColourEncoder(fingerprint="colours-2"), index="words") as other:
        other.loaded().build("words", WORDS, templates="plain")
        # Zero-shot doesn't answer in its place: the answers would change without a word.
        refused = other.client.post("/v1/classify", content=PICTURE["zorp"])
        problem(refused, 409, "fingerprint_mismatch")
        shown = other.client.get("/v1/adapters/words").json()
        assert "made for" in shown["problem"]
        index = other.client.get("/v1/indexes/words").json()
        assert (index["adapter"], index["problem"]) == (None, shown["problem"])
        wait_for(lambda: "made for" in other.client.get("/readyz").json()["reason"])
        assert ask(other, adapter="none")["adapter"] is None
        assert roll_back(other).json()["version"] is None
        assert ask(other.ready())["adapter"] is None
