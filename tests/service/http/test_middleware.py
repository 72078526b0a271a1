"""Request ids, body limits, and the last net under the handlers."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import StreamingResponse

from service.http import problems
from service.http.middleware import RequestMiddleware
from service.http.server import address_of, make_server, open_socket
from service.inference.metrics import Metrics
from tests.service.fakes import picture
from tests.service.servers import problem, wait_for

URL = "/v1/classify"


def test_a_request_keeps_its_id_if_it_is_sane(server):
    def answered(given: str | None) -> str:
        headers = {} if given is None else {"x-request-id": given}
        return server.client.get("/healthz", headers=headers).headers["x-request-id"]

    assert answered("abc-123") == "abc-123"
    assert len(answered(None)) == 32
    assert answered(None) != answered(None)
    assert len(answered("x" * 200)) == 32
    assert len(answered("a b")) == 32


def test_a_body_too_large_is_refused_by_its_length(server):
    response = server.client.post(URL, content=b"x" * 600_000)
    assert "0.5 MB" in problem(response, 413, "body_too_large")["message"]


def test_a_body_of_untold_length_is_refused_while_it_comes(server):
    def chunks():
        for _ in range(60):
            yield b"x" * 10_000

    problem(server.client.post(URL, content=chunks()), 413, "body_too_large")
    as_json = {"content-type": "application/json"}
    for path in (URL, "/v1/embeddings"):  # the second body is read by FastAPI
        response = server.client.post(path, content=chunks(), headers=as_json)
        problem(response, 413, "body_too_large")


def test_a_connection_survives_an_answer_that_came_before_the_body_was_read(server):
    with server.new_client() as client:
        for _ in range(3):
            problem(client.post(URL, content=b"x" * 600_000), 413, "body_too_large")
            assert client.post(URL, content=picture()).status_code == 200


def test_a_client_that_hangs_up_in_the_middle_of_its_body_harms_nobody(server):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nabc"
        )
    assert server.client.post(URL, content=picture()).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", URL, 405, "method_not_allowed"),
        ("DELETE", "/healthz", 405, "method_not_allowed"),
        ("GET", "/v1/jobs/nix", 404, "unknown_job"),
        ("GET", "/v1/indexes/nix", 404, "unknown_index"),
        ("GET", "/v1/indexes/colours?version=9", 404, "unknown_version"),
        ("GET", "/v1/indexes/colours?version=x", 422, "invalid_request"),
        ("GET", "/v1/indexes/%2e%2e", 400, "invalid_index_name"),
    ],
)
def test_one_shape_for_every_error(server, method, path, status, code):
    problem(server.client.request(method, path), status, code)


def test_405_says_what_is_allowed(server):
    response = server.client.get(URL)
    assert response.headers["allow"] == "OPTIONS, POST"
    assert "OPTIONS, POST" in response.json()["error"]["message"]


class Broken:
    """A server of an app that fails in every way a handler can."""

    def __enter__(self):
        app = FastAPI()
        metrics = Metrics()
        app.add_middleware(RequestMiddleware, max_body_bytes=1000, metrics=metrics)
        problems.register(app)

        @app.get("/bug")
        async def bug():
            raise RuntimeError("the password is 1234")

        @app.get("/ours")
        async def ours():
            raise problems.ClipdexError("the password is 1234")

        @app.get("/late")
        async def late():
            async def body():
                yield b"first"
                raise RuntimeError("the password is 1234")

            return StreamingResponse(body())

        @app.post("/swallow")
        async def swallow(request: Request):
            try:
                await request.body()
            except Exception:  # noqa: BLE001
                return {"all": "well"}
            return {}

        self.listener = open_socket("127.0.0.1", 0)
        self.server = make_server(app)
        self.thread = threading.Thread(
            target=lambda: asyncio.run(self.server.serve(sockets=[self.listener])), daemon=True
        )
        self.url = address_of(self.listener)
        self.thread.start()
        wait_for(lambda: self.server.started)
        return httpx.Client(base_url=self.url, trust_env=False)

    def __exit__(self, *exc):
        self.server.should_exit = True
        self.thread.join(30)


@pytest.mark.parametrize("path", ["/bug", "/ours"])
def test_what_a_500_was_goes_to_the_log_and_not_to_the_client(caplog, path):
    with Broken() as client, client, caplog.at_level(logging.ERROR, "clipdex"):
        response = client.get(path, headers={"x-request-id": "find-me"})
    error = problem(response, 500, "internal_error")
    assert error["message"] == problems.INTERNAL
    assert "1234" not in response.text
    assert "find-me" in caplog.text
    assert "1234" in caplog.text


def test_half_an_answer_breaks_the_connection():
    with Broken() as client, client, pytest.raises(httpx.RemoteProtocolError):
        client.get("/late")


def test_a_handler_cannot_swallow_the_limit():
    def chunks():
        for _ in range(20):
            yield b"x" * 100

    with Broken() as client, client:
        problem(client.post("/swallow", content=chunks()), 413, "body_too_large")


def test_options_names_all_methods_of_a_path(server):
    answer = server.client.options("/v1/indexes/colours")
    assert answer.status_code == 204
    assert answer.headers["allow"] == "DELETE, GET, OPTIONS, PATCH, PUT"
    refused = server.client.post("/v1/indexes/colours")
    assert (
        "DELETE, GET, OPTIONS, PATCH, PUT" in problem(refused, 405, "method_not_allowed")["message"]
    )
    refused = server.client.post("/openapi.json")
    assert "GET" in problem(refused, 405, "method_not_allowed")["message"]


def test_letters_beyond_ascii_in_a_url_get_an_error_with_a_hint(server):
    address = server.socket.getsockname()
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall("GET /v1/indexes/사과 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = connection.makefile("rb").read()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"x-request-id: " in head
    error = json.loads(body)["error"]
    assert (error["code"], error["type"]) == ("invalid_request", "invalid_request_error")
    assert "percent-encode" in error["message"]
