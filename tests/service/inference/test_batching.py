"""Many clients and one encoder: sharing, isolation, back-pressure, clients that leave, faults."""

from __future__ import annotations

import asyncio
import socket
import threading

import httpx
import pytest

from tests.service.fakes import COLOURS, ColourEncoder, picture
from tests.service.servers import CATEGORIES, Running, problem, wait_for

URL = "/v1/classify?labels=" + ",".join(CATEGORIES)


class Gate:
    """Lets a test hold the encoder in the middle of a batch."""

    def __init__(self) -> None:
        self.encoder = ColourEncoder()
        self.open = threading.Event()
        self.open.set()
        self.encoder.on_batch = lambda pixels: self.open.wait(30)

    def load(self) -> ColourEncoder:
        return self.encoder


async def ask(url: str, colours: list[str]) -> list[httpx.Response]:
    """One request a colour, all at once."""
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(
        base_url=url, timeout=30, limits=limits, trust_env=False
    ) as client:
        return await asyncio.gather(
            *(client.post(URL, content=picture(colour)) for colour in colours)
        )


def label(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return response.json()["results"][0]["matches"][0]["label"]


def test_requests_share_batches_and_everyone_gets_their_own_answer(tmp_path):
    gate = Gate()
    colours = list(COLOURS) * 8
    with Running(tmp_path, gate.load, max_batch=16) as running:
        running.ready()
        assert label(running.client.post(URL, content=picture("red"))) == "red"
        gate.open.clear()
        gate.encoder.batches.clear()
        threading.Timer(0.3, gate.open.set).start()
        responses = asyncio.run(ask(running.url, colours))
        assert [label(response) for response in responses] == colours
        assert sum(gate.encoder.batches) == len(colours)
        assert max(gate.encoder.batches) == 16
        assert gate.encoder.threads == {"clipdex-encoder"}


def test_a_full_queue_answers_503_at_once_and_recovers(tmp_path):
    gate = Gate()
    with Running(tmp_path, gate.load, queue_size=4, max_images=4, max_batch=1) as running:
        running.ready()
        label(running.client.post(URL, content=picture("red")))  # the labels are encoded now
        gate.open.clear()
        answers: list[httpx.Response] = []

        def send() -> None:
            with running.new_client() as client:
                answers.append(client.post(URL, content=picture("blue")))

        threads = [threading.Thread(target=send) for _ in range(5)]
        queue = running.services.engine._queue
        threads[0].start()
        wait_for(lambda: gate.encoder.batches[-1:] == [1] and len(gate.encoder.batches) == 2)
        for thread in threads[1:]:
            thread.start()
        wait_for(lambda: queue.waiting == 4)
        refused = running.client.post(URL, content=picture("green"))
        problem(refused, 503, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        assert running.client.get("/readyz").status_code == 200
        gate.open.set()
        for thread in threads:
            thread.join()
        assert [label(answer) for answer in answers] == ["blue"] * 5
        assert label(running.client.post(URL, content=picture("green"))) == "green"


def test_a_client_that_has_gone_costs_the_encoder_nothing(tmp_path):
    gate = Gate()
    with Running(tmp_path, gate.load, max_batch=1) as running:
        running.ready()
        label(running.client.post(URL, content=picture("red")))
        gate.open.clear()
        done: list[str] = []

        def send() -> None:
            with running.new_client() as client:
                done.append(label(client.post(URL, content=picture("blue"))))

        first = threading.Thread(target=send)
        first.start()
        wait_for(lambda: len(gate.encoder.batches) == 2)  # it is in the encoder's hands
        host, port = running.url.removeprefix("http://").split(":")
        leaving = [socket.create_connection((host, int(port))) for _ in range(3)]
        body = picture("green")
        head = f"POST {URL} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        for connection in leaving:
            connection.sendall(head.encode() + body)
        queue = running.services.engine._queue
        wait_for(lambda: queue.waiting == 3)
        for connection in leaving:
            connection.close()
        metrics = running.services.metrics
        gone = b'clipdex_requests_total{method="POST",path="/v1/classify",status="499"} 3.0'
        wait_for(lambda: gone in metrics.exposition())
        gate.open.set()
        first.join()
        assert done == ["blue"]
        assert label(running.client.post(URL, content=picture("white"))) == "white"
        assert len(gate.encoder.batches) == 3  # red, blue and white; never the three greens


def test_readyz_tells_when_the_encoder_dies_and_when_it_is_back(tmp_path):
    def load() -> ColourEncoder:
        encoder = ColourEncoder()

        def die_of_black(pixels) -> None:
            if (pixels < 0.1).all(axis=(1, 2, 3)).any():
                raise SystemExit("a driver ended the thread")

        encoder.on_batch = die_of_black
        return encoder

    with Running(tmp_path, load) as running:
        running.ready()
        problem(running.client.post(URL, content=picture("black")), 503, "encoder_failed")
        wait_for(lambda: running.client.get("/readyz").status_code == 503)
        assert running.client.get("/readyz").json()["status"] == "restarting"
        assert running.client.get("/healthz").status_code == 200
        problem(running.client.post(URL, content=picture("red")), 503, "not_ready")
        running.ready()
        assert label(running.client.post(URL, content=picture("red"))) == "red"


def test_the_server_answers_before_the_model_is_loaded(tmp_path):
    allowed = threading.Event()

    def load() -> ColourEncoder:
        allowed.wait(30)
        return ColourEncoder()

    with Running(tmp_path, load) as running:
        assert running.client.get("/healthz").status_code == 200
        assert running.client.get("/readyz").json()["status"] == "loading"
        assert running.client.get("/docs").status_code == 200
        refused = running.client.post(URL, content=picture())
        problem(refused, 503, "not_ready")
        assert refused.headers["retry-after"]
        allowed.set()
        running.ready()


@pytest.mark.parametrize("adhoc", [True, False])
def test_building_an_index_lets_images_through(tmp_path, adhoc):
    """A long list of prompts is encoded in turns, not in one go."""
    encoder = ColourEncoder()
    gate = threading.Semaphore(0)
    with Running(tmp_path, lambda: encoder, max_labels=5000) as running:
        running.ready()
        label(running.client.post(URL, content=picture("red")))
        encoder.on_texts = lambda texts: gate.acquire(timeout=30)
        labels = [f"thing {number}" for number in range(60)]
        answered: list[httpx.Response] = []

        def build() -> None:
            with running.new_client() as client:
                if adhoc:
                    fields = {"labels": ",".join(labels)}
                    files = {"files": picture("blue")}
                    answered.append(client.post("/v1/classify", data=fields, files=files))
                else:
                    answered.append(client.put("/v1/indexes/big", json={"categories": labels}))

        builder = threading.Thread(target=build)
        builder.start()
        for _ in range(3):  # between two parts of the list, an image is answered
            threading.Timer(0.1, gate.release).start()
            assert label(running.client.post(URL, content=picture("green"))) == "green"
        encoder.on_texts = None
        gate.release(1000)
        builder.join()
        assert answered[0].status_code in (200, 202)
