"""Callbacks against a real server of a few lines."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from service.errors import CallbackError
from service.finetuning.queue import JobQueue
from service.finetuning.webhook import Notifier, check_callback, sign
from service.settings import Settings
from tests.service.finetuning.shots import begin, colour_server, packed, send, shots
from tests.service.servers import problem, wait_for

SECRET = "a secret of sixteen"


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent, and answers with one status after the other, the last one for ever."""

    def __init__(self, *statuses: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses = list(statuses)
        self.calls: list[tuple[dict[str, str], bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/hooks/done"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.calls.append((dict(self.headers), body))
        status = self.server.statuses[0]
        if len(self.server.statuses) > 1:
            self.server.statuses.pop(0)
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    server = Receiver(*getattr(request, "param", (200,)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def settings(data: Path, receiver: Receiver) -> Settings:
    return Settings(data=data, callback_urls=(receiver.url[:-4],), callback_secret=SECRET)


def notify(settings: Settings, url: str) -> JobQueue:
    queue = JobQueue(settings.jobs_file)
    queue.add("job", {"callback_url": url})
    queue.claim()
    record = queue.finish("job", "succeeded", result={"version": 3})

    async def scene() -> None:
        notifier = Notifier(settings, queue, lambda r: {"id": r.id}, first_pause=0.001)
        notifier.ended(record)
        await asyncio.gather(*notifier._tasks)

    asyncio.run(scene())
    return queue


def test_it_is_signed_as_the_page_says(tmp_path: Path, receiver: Receiver):
    queue = notify(settings(tmp_path, receiver), receiver.url)
    [(headers, body)] = receiver.calls
    assert json.loads(body) == {"id": "job"}
    assert headers["X-Clipdex-Job"] == "job"
    signed = headers["X-Clipdex-Timestamp"].encode() + b"." + body
    mac = hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert headers["X-Clipdex-Signature"] == f"sha256={mac}"
    assert sign(SECRET, headers["X-Clipdex-Timestamp"], body + b" ") != f"sha256={mac}"
    assert queue.untold() == []


@pytest.mark.parametrize(
    ("receiver", "calls"),
    [((500, 503, 204), 3), ((500,), 5), ((302,), 5)],
    ids=["until it is received", "five times at most", "redirects aren't followed"],
    indirect=["receiver"],
)
def test_tried_again(tmp_path: Path, receiver: Receiver, calls: int):
    queue = notify(settings(tmp_path, receiver), receiver.url)
    assert len(receiver.calls) == calls
    assert queue.untold() == []


def test_an_address_that_is_not_allowed_any_more_is_not_called(tmp_path: Path, receiver: Receiver):
    notify(Settings(data=tmp_path, callback_secret=SECRET), receiver.url)
    assert receiver.calls == []


ALLOWED = Settings(
    callback_urls=("https://ci.example/hooks", "http://10.0.0.1:8080"), callback_secret=SECRET
)


@pytest.mark.parametrize(
    "url",
    [
        "https://ci.example/hooks",
        "https://ci.example/hooks/1?run=2",
        "https://ci.example:443/hooks/1",
        "http://10.0.0.1:8080/any",
    ],
)
def test_allowed(url: str):
    check_callback(url, ALLOWED)


@pytest.mark.parametrize(
    "url",
    [
        "http://ci.example/hooks",
        "https://ci.example/hooksmith",
        "https://ci.example/",
        "https://ci.example/hooks/../admin",
        "https://ci.example/hooks/%2e%2e/admin",
        "https://ci.example/hooks/..%2fadmin",
        "https://ci.example:8443/hooks",
        "https://ci.example.evil/hooks",
        "https://ci.example@evil/hooks",
        "https://user:pass@ci.example/hooks",
        "https://evil\\@ci.example/hooks",
        "http://10.0.0.1/any",
        "http://10.0.0.1:x/any",
        "http://[::1/any",
        "file:///etc/passwd",
        "nonsense",
    ],
)
def test_not_allowed(url: str):
    with pytest.raises(CallbackError):
        check_callback(url, ALLOWED)


def test_through_the_api(tmp_path: Path, receiver: Receiver):
    limits = {"callback_urls": (receiver.url[:-4],), "finetune_jobs": 0}
    with colour_server(tmp_path, callback_secret=SECRET, **limits) as server:
        begin(server)
        archive = packed(shots(2))
        error = problem(
            send(server.client, archive, callback_url="http://127.0.0.1:1/"),
            403,
            "callback_not_allowed",
        )
        assert error["param"] == "callback_url"
        answer = send(server.client, archive, callback_url=receiver.url)
        server.client.delete(answer.headers["location"])
        wait_for(lambda: receiver.calls)
        told = json.loads(receiver.calls[0][1])
        assert told == server.client.get(answer.headers["location"]).json()
        assert told["state"] == "cancelled"
    with colour_server(tmp_path / "2", callback_urls=(receiver.url,), finetune_jobs=0) as server:
        begin(server)
        answer = send(server.client, archive, callback_url=receiver.url)
        assert "SECRET" in problem(answer, 403, "callback_not_allowed")["message"]
