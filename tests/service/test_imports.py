"""What a process imports decides how soon it is ready and how much it holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from indexer import CategoryIndex, IndexStore
from models import load_encoder
from tests.service.fakes import picture

HEAVY = ("torch", "torchvision", "open_clip", "timm", "transformers", "matplotlib", "sklearn")
SERVE = """
import asyncio, json, sys, threading, urllib.request
from pathlib import Path
from service.http.app import create_app
from service.http.server import address_of, make_server, open_socket

app = create_app()
listener = open_socket("127.0.0.1", 0)
server = make_server(app)
threading.Thread(
    target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True
).start()
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
while True:
    try:
        opener.open(address_of(listener) + "/readyz").close()
        break
    except OSError:
        assert not getattr(app.state, "services", None) or not app.state.services.failure
image = Path(sys.argv[1]).read_bytes()
for _ in range(3):
    answer = json.load(opener.open(address_of(listener) + "/v1/classify", data=image))
server.should_exit = True
print(json.dumps({"answer": answer, "modules": sorted(sys.modules)}))
"""


def python(code: str, *arguments: str, **environment: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A data folder with an index, and a cache with the converted model."""
    data = tmp_path_factory.mktemp("warm")
    encoder = load_encoder("everyday", backend="openvino", cache_dir=data / "cache")
    IndexStore(data / "indexes").publish("default", CategoryIndex.build(["red", "blue"], encoder))
    return {
        "CLIPDEX_DATA": str(data),
        "CLIPDEX_CACHE": str(data / "cache"),
        "CLIPDEX_BACKEND": "openvino",
    }


def test_classifying_from_a_warm_cache_imports_neither_torch_nor_open_clip(warm, tmp_path):
    sample = tmp_path / "red.png"
    sample.write_bytes(picture("red"))
    found = python(SERVE, str(sample), **warm)
    assert found["answer"]["results"][0]["matches"][0]["label"] in ("red", "blue")
    assert [name for name in HEAVY if name in found["modules"]] == []
    rare = ("typer", "rich", "huggingface_hub", "sse_starlette", "httpx", "requests")
    assert [name for name in rare if name in found["modules"]] == []


@pytest.mark.parametrize("arguments", [["--help"], ["index", "list"], ["models", "--help"]])
def test_light_commands_import_nothing_heavy(arguments, tmp_path):
    code = (
        "import json, sys\nfrom service.cli import run\n"
        "code = run(sys.argv[1:])\nprint(json.dumps({'code': code, 'modules': list(sys.modules)}))"
    )
    found = python(code, *arguments, CLIPDEX_DATA=str(tmp_path))
    assert found["code"] == 0
    heavy = (*HEAVY, "openvino", "fastapi", "uvicorn")
    assert [name for name in heavy if name in found["modules"]] == []


def test_importing_the_room_imports_nothing_and_does_nothing():
    code = "import json, sys, service; print(json.dumps(list(sys.modules)))"
    modules = python(code)
    assert [name for name in ("fastapi", "numpy", "models", "pydantic") if name in modules] == []
