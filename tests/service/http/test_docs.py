"""The pages about HTTP and the command line say what the code does."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import indexer.errors
import models.errors
import models.images
import service.errors
import training.errors
from models.errors import ClipdexError
from service.cli.reference import reference
from service.http.app import create_app
from service.serving.options import ClassifyOptions
from service.settings import Settings
from tests.service.fakes import picture
from tests.service.finetuning.shots import shot

DOCS = Path(__file__).parents[3] / "docs"
API = (DOCS / "api.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^### ([A-Z]+) (\S+)$", API, re.MULTILINE)


def section(method: str, path: str) -> str:
    return API.split(f"### {method} {path}\n")[1].split("\n### ")[0]


def operations() -> Iterator[tuple[str, str, dict]]:
    description = create_app(Settings()).openapi()
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, {**operation, "components": description["components"]}


def test_the_command_line_page_is_the_commands_own_words():
    advice = "run: python -m service.cli.reference docs/cli.md"
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == reference(), advice


def test_every_setting_is_documented():
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        assert f"CLIPDEX_{name.upper()}" in page
        assert field.description


def test_every_endpoint_has_its_section_and_every_section_its_endpoint():
    assert sorted(HEADINGS) == sorted((method, path) for method, path, _ in operations())


def test_every_parameter_and_field_is_in_its_section():
    for method, path, operation in operations():
        names = [item["name"] for item in operation.get("parameters", []) if item["in"] == "query"]
        for content in operation.get("requestBody", {}).get("content", {}).values():
            schema = content["schema"]
            if "$ref" in schema:
                schema = operation["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            names += schema.get("properties", {})
        text = section(method, path)
        missing = [name for name in names if f"`{name}`" not in text]
        assert missing == [], f"{method} {path}"


def test_the_options_of_classify_are_described_with_their_defaults():
    rows = dict(
        re.findall(r"^\| `(\w+)` \| (.*?) \|", section("POST", "/v1/classify"), re.MULTILINE)
    )
    assert set(rows) == set(ClassifyOptions.model_fields)
    for name, field in ClassifyOptions.model_fields.items():
        if field.default is not None:
            said = rows[name].strip("`")
            same = said == field.default or float(said) == field.default
            assert same, name


def test_every_error_code_is_in_the_table():
    table = API.split("| status | code | means |")[1].split("\n\n")[0]
    codes = {"not_found", "method_not_allowed"}
    rooms = (models.errors, models.images, indexer.errors, training.errors, service.errors)
    for module in rooms:
        for item in vars(module).values():
            if isinstance(item, type) and issubclass(item, ClipdexError):
                codes.add(item.code)
    # Never seen by a client: the root of the tree, who has gone, what ends a process before it
    # serves, and what is told as internal_error.
    codes -= {"error", "client_gone", "invalid_setting", "port_unavailable", "invalid_path"}
    codes -= {"model_broken", "backend_failed", "job_stopped", "service_ended", "refused"}
    # The command line's, or what only a fine-tuning job's own record tells.
    codes -= {"nothing_to_export", "training_failed", "checkpoint_unusable", "hook_changed_state"}
    assert [code for code in sorted(codes) if f"`{code}`" not in table] == []


@pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("zip")), reason="curl or zip isn't installed"
)
def test_the_examples_work_in_the_order_of_the_page(server, tmp_path):
    for colour in ("red", "blue"):
        (tmp_path / f"{colour}.png").write_bytes(picture(colour))
        for number in range(1, 5):
            (tmp_path / f"{colour}.{number}.png").write_bytes(shot(colour, number))
    url, run = "http://127.0.0.1:8000", 0
    for block in re.findall(r"```bash\n(.*?)```", API, re.DOTALL):
        script = "set -e\n" + block.replace(url, server.url).replace(
            "curl ", "curl -sS --fail-with-body --noproxy '*' "
        )
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (block, done.stdout, done.stderr)
        run += block.count("curl ")
        jobs = re.findall(r'"id":"(\w+)"', done.stdout)
        kind = "finetunes" if "/v1/finetunes" in block else "jobs"
        for job in jobs:  # the page's next example builds on it
            server.client.get(f"/v1/{kind}/{job}/events").raise_for_status()
            state = server.client.get(f"/v1/{kind}/{job}").json()
            assert state["state"] == "succeeded", state
    assert run >= 8
