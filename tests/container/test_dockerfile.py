"""What can be told of the image without building it; `make container-proof` builds and tries it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def stages() -> list[list[tuple[str, str]]]:
    """The Dockerfile's stages, each a list of (instruction, the rest of it)."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"(?m)^\s*#.*\n", "", text).replace("\\\n", " ")
    found: list[list[tuple[str, str]]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest.strip()))
    return found


def of(stage: list[tuple[str, str]], name: str) -> list[str]:
    return [rest for instruction, rest in stage if instruction == name]


def test_the_pins_are_those_of_the_project():
    build = "\n".join(of(stages()[0], "RUN"))
    pinned = [item for item in PROJECT["project"]["dependencies"] if "==" in item]
    for item in pinned:
        if item.startswith("torch"):
            assert item in build
    assert "requirements.lock" in build


def test_the_image_and_make_run_bring_what_fine_tuning_needs():
    build = "\n".join(of(stages()[0], "RUN"))
    assert "['optional-dependencies']['train']" in build
    install = (ROOT / "tools" / "install").read_text(encoding="utf-8")
    assert "-e '.[train]'" in install


def test_the_proof_mounts_every_file_that_the_settings_of_pip_name():
    script = (ROOT / "tools" / "container-proof").read_text(encoding="utf-8")
    mounted = script[script.index("while read -r path") : script.index('say "building')]
    for name in ("cert", "constraint", "find-links"):
        assert f"setting {name}" in mounted


def test_every_package_of_the_wheel_is_copied_into_the_build_and_none_is_ignored():
    copied = {source for rest in of(stages()[0], "COPY") for source in rest.split()[:-1]}
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    assert set(PACKAGES) <= copied
    assert copied == allowed


def test_the_image_holds_the_environment_alone_and_runs_as_nobody_special():
    build, final = stages()
    assert of(final, "COPY") == ["--from=build /opt/venv /opt/venv"]
    assert of(build, "USER") == []
    (user,) = of(final, "USER")
    assert int(user) > 0
    assert of(final, "VOLUME") == ["/data"]
    assert of(final, "EXPOSE") == ["8000"]
    assert any("CLIPDEX_DATA=/data" in rest for rest in of(final, "ENV"))
    order = [name for name, _ in final]
    assert order.index("USER") > max(i for i, name in enumerate(order) if name == "RUN")


def test_the_command_and_the_health_check_are_in_exec_form():
    final = stages()[-1]
    (command,) = of(final, "CMD")
    assert json.loads(command) == ["clipdex", "serve", "--host", "0.0.0.0"]
    (check,) = of(final, "HEALTHCHECK")
    program = json.loads(check.partition("CMD ")[2])
    assert program[:2] == ["python", "-c"]
    assert "/readyz" in program[2]
    compile(program[2], "HEALTHCHECK", "exec")


@pytest.mark.parametrize("status", [200, 503])
def test_the_health_check_passes_on_200_alone(status: int):
    (check,) = of(stages()[-1], "HEALTHCHECK")
    program = json.loads(check.partition("CMD ")[2])[2]
    server = (
        "import http.server, os, subprocess, sys, threading\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        f"        self.send_response({status} if self.path == '/readyz' else 404)\n"
        "        self.end_headers()\n"
        "server = http.server.HTTPServer(('127.0.0.1', 0), Handler)\n"
        "threading.Thread(target=server.serve_forever, daemon=True).start()\n"
        "os.environ['CLIPDEX_PORT'] = str(server.server_port)\n"
        "sys.exit(subprocess.run([sys.executable, '-c', sys.argv[1]]).returncode)\n"
    )
    done = subprocess.run([sys.executable, "-c", server, program], capture_output=True, check=False)
    assert (done.returncode == 0) == (status == 200), done.stderr.decode()


def test_compose_starts_the_same_image_locked_down():
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    service = compose["services"]["clipdex"]
    assert service["build"] == "."
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    assert service["volumes"] == ["data:/data"]
    assert "data" in compose["volumes"]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]


def test_the_proof_is_a_script_that_bash_understands_and_make_knows():
    script = ROOT / "tools" / "container-proof"
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", script], check=True)
    assert "tools/container-proof" in (ROOT / "Makefile").read_text(encoding="utf-8")
