"""The service as a child process."""

from __future__ import annotations

import io
import socket
import sys
import time

import httpx
import pytest
from rich.console import Console

from service.child import HOST, Child, ServiceFailedError, claim_port, serve_command
from service.errors import PortError

# Ready at the third question, in the given state before that.
SERVICE = """
import http.server, json, sys
asked = 0
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args): pass
    def answer(self, code, body):
        body = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        global asked
        asked += 1
        state = "ready" if asked >= 3 else sys.argv[2]
        self.answer(200 if state == "ready" else 503, {"status": state, "reason": f"I am {state}"})
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def quiet() -> Console:
    return Console(file=io.StringIO(), width=120)


def test_waits_until_the_service_is_ready_and_leaves_nothing_behind(quiet: Console):
    port = claim_port(0)
    url = f"http://{HOST}:{port}"
    states: list[str] = []
    with (
        Child([sys.executable, "-c", SERVICE, str(port), "loading"], url, quiet) as child,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        child.wait_ready(client, on_state=states.append, timeout_s=60)
        assert states == ["I am loading"]
        assert client.get("/readyz").json()["status"] == "ready"
    with pytest.raises(httpx.TransportError):
        httpx.get(url, trust_env=False)


def test_a_service_that_dies_is_told_with_its_last_words(quiet: Console):
    command = [sys.executable, "-c", "raise SystemExit('no such model: piktogram')"]
    with (
        Child(command, "http://127.0.0.1:1", quiet) as child,
        httpx.Client(base_url="http://127.0.0.1:1", trust_env=False) as client,
        pytest.raises(ServiceFailedError, match=r"exit code 1; .*no such model: piktogram"),
    ):
        child.wait_ready(client, timeout_s=60)


def test_a_service_that_can_never_become_ready_is_not_waited_for(quiet: Console):
    port = claim_port(0)
    url = f"http://127.0.0.1:{port}"
    with (
        Child([sys.executable, "-c", SERVICE, str(port), "failed"], url, quiet) as child,
        httpx.Client(base_url=url, trust_env=False) as client,
        pytest.raises(ServiceFailedError, match="I am failed"),
    ):
        child.wait_ready(client, timeout_s=60)


def test_a_service_that_ends_while_it_serves_is_told(quiet: Console):
    child = Child([sys.executable, "-c", "print('bye')"], "http://127.0.0.1:1", quiet)
    with pytest.raises(ServiceFailedError, match=r"exit code 0; its last words: bye"):
        child.wait()


def test_a_service_that_does_not_stop_is_killed(quiet: Console):
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        " print('up', flush=True); time.sleep(600)"
    )
    child = Child([sys.executable, "-c", deaf], "http://127.0.0.1:1", quiet)
    while "up" not in child.log():
        time.sleep(0.01)
    child.stop(timeout_s=0.2)
    assert child.exit_code is not None
    assert child.exit_code < 0


def test_a_taken_port_is_refused_and_a_free_one_is_found():
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortError, match=f"port {port} .*CLIPDEX_PORT={port + 1} make run"):
            claim_port(port)
    assert claim_port(port) == port
    assert claim_port(0) > 0


def test_the_command_serves_on_the_port_in_this_interpreter():
    command = serve_command(8123)
    assert command[0] == sys.executable
    assert command[-4:] == ["--host", HOST, "--port", "8123"]
