"""Real servers on free ports, in threads of the test's process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from models import Encoder
from service.finetuning.runner import COMMAND
from service.http.app import create_app
from service.http.server import address_of, make_server, open_socket
from service.http.services import Services
from service.settings import Settings
from tests.service.contract import contract_of
from tests.service.fakes import ColourEncoder

CATEGORIES = ["red", "green", "blue", "yellow", "white", "black"]


class Running:
    """A server of `create_app` until the `with` block ends."""

    def __init__(
        self,
        data: Path,
        load: Callable[[], Encoder] = ColourEncoder,
        *,
        job_command: Sequence[str] = COMMAND,
        **settings: Any,
    ) -> None:
        self.settings = Settings(data=data, **settings)
        self.app = create_app(self.settings, load=load, job_command=job_command)
        self.socket = open_socket("127.0.0.1", 0)
        self.url = address_of(self.socket)
        self.server = make_server(self.app)
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        asyncio.run(self.server.serve(sockets=[self.socket]))

    def __enter__(self) -> Self:
        self.thread.start()
        wait_for(lambda: self.server.started)
        self.client = self.new_client()
        return self

    def __exit__(self, *exc: object) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()

    @property
    def services(self) -> Services:
        services: Services = self.app.state.services
        return services

    def new_client(self) -> httpx.Client:
        """A client whose every JSON answer is checked against the server's /openapi.json."""
        hooks = {"response": [contract_of(self.url).check]}
        return httpx.Client(base_url=self.url, timeout=30, trust_env=False, event_hooks=hooks)

    def ready(self) -> Self:
        wait_for(lambda: self.client.get("/readyz").status_code == 200)
        return self

    def loaded(self) -> Self:
        """Return once the model is loaded, whatever becomes of the default index."""
        wait_for(lambda: self.services.engine.state.name == "ready")
        return self

    def job(self, response: httpx.Response) -> dict[str, Any]:
        """The job that a response announces, once it has ended."""
        assert response.status_code == 202, response.text
        url = response.headers["location"]
        wait_for(lambda: self.client.get(url).json()["state"] in ("succeeded", "failed"))
        job: dict[str, Any] = self.client.get(url).json()
        return job

    def build(self, name: str, categories: list[Any] = CATEGORIES, **more: Any) -> dict[str, Any]:
        body = {"categories": categories, **more}
        job = self.job(self.client.put(f"/v1/indexes/{name}", json=body))
        assert job["state"] == "succeeded", job
        return job


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    """Return once `condition()` holds; fail if it never does.

    The pauses grow from 10 to 100 ms: a server that is asked all the time has less for its work.
    """
    deadline = time.monotonic() + seconds
    pause = 0.01
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(pause)
        pause = min(pause * 1.2, 0.1)


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error of a response, after checking its shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert list(response.json()) == ["error"]
    error: dict[str, Any] = response.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert error["code"] == code
    assert error["type"] == ("invalid_request_error" if status < 500 else "server_error")
    assert error["message"]
    assert "\n" not in error["message"]
    return error
