"""`clipdex serve` as a process: its address, its end, and what stops it from starting."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from indexer import CategoryIndex, IndexStore
from models import load_encoder
from service.errors import PortError
from service.http.server import address_of, open_socket
from tests.service.fakes import picture

SERVE = [sys.executable, "-c", "from service.cli import main; main()", "serve"]


@pytest.fixture
def environment(tmp_path, tiny_clip_dir):
    # what is printed must come at once without this too
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    return {
        **inherited,
        "CLIPDEX_MODEL": f"local-dir:{tiny_clip_dir}",
        "CLIPDEX_BACKEND": "torch",
        "CLIPDEX_PRECISION": "fp32",
        "CLIPDEX_DATA": str(tmp_path / "data"),
        "CLIPDEX_CACHE": str(tmp_path / "cache"),
    }


def fails(environment, *arguments: str) -> str:
    """The one line on stderr of a server that doesn't start because of its user."""
    done = subprocess.run(
        [*SERVE, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    *notes, error = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert not any("Traceback" in line for line in notes)
    return error


def test_it_prints_its_address_when_it_answers_and_ends_well(environment):
    encoder = load_encoder(environment["CLIPDEX_MODEL"], backend="torch", precision="fp32")
    folder = Path(environment["CLIPDEX_DATA"]) / "indexes"
    IndexStore(folder).publish("default", CategoryIndex.build(["red", "blue"], encoder))
    with subprocess.Popen(
        [*SERVE, "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        with httpx.Client(base_url=ready["url"], trust_env=False, timeout=30) as client:
            assert client.get("/readyz").status_code == 200
            response = client.post("/v1/classify", content=picture("red", size=40))
            assert response.json()["model"] == ready["model"]
            assert len(response.json()["results"][0]["matches"]) == 2
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    assert "the model is being loaded" in err
    assert "Traceback" not in err


def test_a_taken_port_is_one_line(environment):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = fails(environment, "--port", str(port))
    assert f"127.0.0.1:{port}" in error
    assert "--port" in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "no.such.host.invalid"], "no.such.host.invalid"),
        (["--model", "local-dir:/nowhere"], "/nowhere"),
        (["--index", "nix"], "no index is called 'nix'"),
        (["--precision", "fp8"], "CLIPDEX_PRECISION"),
        (["--data", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_what_cannot_be_served(environment, arguments, said):
    assert said in fails(environment, "--port", "0", *arguments)


def test_addresses():
    for host, shown in (("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")):
        with open_socket(host, 0) as listener:
            assert address_of(listener) == f"http://{shown}:{listener.getsockname()[1]}"
    with open_socket("127.0.0.1", 0) as listener, pytest.raises(PortError):
        open_socket("127.0.0.1", listener.getsockname()[1])


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_an_ipv6_address_is_put_in_brackets():
    try:
        listener = open_socket("::1", 0)
    except PortError:
        pytest.skip("no IPv6 here")
    with listener:
        assert address_of(listener).startswith("http://[::1]:")
