"""An adapter that brings a model of its own: the index is embedded anew, and both swap at once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from indexer import CategoryIndex
from models import load_encoder
from models.images import decode_image
from service.serving.assignments import Assignments
from tests.service.finetuning.shots import SHOTS, shot, shots
from tests.service.servers import Running
from training.adapters.store import AdapterStore
from training.finetune import Sources, finetune_folder

WORDS = [*SHOTS, "yellow", "white"]


def scores(answer: dict) -> dict[str, float]:
    """Their last digits depend on whose images shared the batch."""
    return {match["label"]: match["score"] for match in answer["results"][0]["matches"]}


@pytest.mark.slow
def test_promoted_under_load_and_rolled_back(tiny_clip_dir: Path, tmp_path: Path):
    model_id = f"local-dir:{tiny_clip_dir}"
    base = load_encoder(model_id, backend="torch")
    for path, picture in shots(4).items():
        (tmp_path / "shots" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "shots" / path).write_bytes(picture)
    store = AdapterStore(tmp_path / "data" / "adapters")
    samples = Sources(tmp_path / "shots", val=0.5, templates=("{}",), views=1, cache=None)
    finetune_folder(
        base,
        samples.read(base),
        store=store,
        name="own",
        method="partial",
        report=tmp_path / "report.html",
    )
    Assignments(store.root).set_made_for("own", "words")
    tuned = store.load("own", 1, fingerprint=base.fingerprint)
    assert tuned.manifest.changes == "weights"
    encoder = load_encoder(tuned.model_id, backend="torch")
    index = CategoryIndex.build(WORDS, encoder, templates="plain")
    picture = shot("red", 99)
    vectors = encoder.encode_images([decode_image(picture)])
    wanted = {match.label: match for match in index.search(vectors, 10)[0]}

    settings = {"index": "words", "model": model_id, "backend": "torch"}
    with Running(tmp_path / "data", lambda: base, **settings) as server:
        server.loaded().build("words", WORDS, templates="plain")
        server.ready()

        def ask() -> dict:
            answer = server.client.post("/v1/classify", params={"top_k": 10}, content=picture)
            assert answer.status_code == 200, answer.text
            return answer.json()

        zero = ask()
        stop, answers = threading.Event(), []

        def client() -> None:
            with server.new_client() as own:
                while not stop.is_set():
                    answers.append(own.post("/v1/classify", params={"top_k": 10}, content=picture))

        clients = [threading.Thread(target=client) for _ in range(4)]
        for thread in clients:
            thread.start()
        try:
            done = server.client.post("/v1/adapters/own/promote", json={"force": True})
            one = ask()
            undone = server.client.post("/v1/adapters/own/rollback", json={})
            again = ask()
        finally:
            stop.set()
            for thread in clients:
                thread.join(30)
    assert done.status_code == 200, done.text
    assert undone.json()["version"] is None
    assert again["adapter"] is None
    assert scores(again) == pytest.approx(scores(zero), abs=1e-5)
    assert one["adapter"] == "own@1"
    found = {match["label"]: match for match in one["results"][0]["matches"]}
    assert set(found) == set(WORDS)
    for label, match in found.items():
        assert match["score"] == pytest.approx(wanted[label].score, abs=1e-5)
        assert match["probability"] == pytest.approx(wanted[label].probability, abs=1e-4)
    assert found["zorp"]["score"] != pytest.approx(
        {m["label"]: m for m in zero["results"][0]["matches"]}["zorp"]["score"], abs=1e-4
    )
    assert len(answers) > 8
    assert {answer.status_code for answer in answers} == {200}
    for answer in answers:
        expected = one if answer.json()["adapter"] else zero
        assert scores(answer.json()) == pytest.approx(scores(expected), abs=1e-5)
