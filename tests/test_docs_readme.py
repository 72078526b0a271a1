"""Every example of the README runs as it stands there, against a running server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet
import pytest

from service.demo.child import serve_command, serving

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SAMPLES = ROOT / "service" / "samples"
URL = "http://127.0.0.1:8000"
# What starts a server, a build or a download is not run here; what it names must exist.
NOT_RUN = ("make ", "docker ", "CLIPDEX_MODEL=")
EXAMPLE_ANSWER = json.loads(re.search(r"^```json\n(.*?)^```$", README, re.M | re.S).group(1))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


def commands() -> list[str]:
    return [block for block in blocks("bash") if not block.startswith(NOT_RUN)]


@dataclass(frozen=True)
class Place:
    """A folder that looks like a checkout, and a server that takes port 8000's part."""

    folder: Path
    url: str
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        done = subprocess.run(
            [part.replace(URL, self.url) for part in command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("readme")
    (folder / "service").symlink_to(ROOT / "service")
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("CLIPDEX_"):
                patch.delenv(name)
        patch.setenv("CLIPDEX_DATA", str(folder / "data"))
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("PYTHONPATH", str(ROOT))
        with serving(serve_command(0), start_timeout_s=240) as child:
            yield Place(folder, child.url, dict(os.environ))


def answers_in(text: str) -> list[dict[str, Any]]:
    """The JSON objects that stand in a terminal's text, each from a line that begins with one."""
    decode = json.JSONDecoder().raw_decode
    starts = [match.start() for match in re.finditer(r"(?m)^\{", text)]
    return [decode(text, start)[0] for start in starts]


def sample_labels(command: str) -> list[str]:
    return [stem.replace("_", " ") for stem in re.findall(r"samples/(\w+)\.png", command)]


def shape(value: Any) -> Any:
    """Keys and types, without the values."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value).__name__


@pytest.mark.parametrize("command", [c for c in commands() if "curl" in c])
def test_curl_examples_get_the_answer_that_the_drawing_deserves(place: Place, command: str):
    if shutil.which("curl") is None:
        pytest.skip("there is no curl on this machine to run the README's curl lines with")
    (answer,) = answers_in(place.run("bash", "-euc", command))
    labels = sample_labels(command)
    assert len(answer["results"]) == len(labels)
    own = re.search(r'labels="([^"]*)"', command)
    for label, result in zip(labels, answer["results"], strict=True):
        # What none of the labels names must be shown as unknown: that is what the example is for.
        known = own is None or label in own.group(1).split(",")
        assert result["unknown"] != known
        if known:
            assert result["matches"][0]["label"] == label


def test_the_answer_in_the_readme_is_what_the_first_command_gets(place: Place):
    path = SAMPLES / EXAMPLE_ANSWER["results"][0]["file"]
    files = {"files": (path.name, path.read_bytes())}
    url = f"{place.url}/v1/classify"
    answer = httpx.post(url, params={"top_k": 2}, files=files, trust_env=False).json()
    assert shape(answer) == shape(EXAMPLE_ANSWER)
    shown, given = EXAMPLE_ANSWER["results"][0]["matches"], answer["results"][0]["matches"]
    assert [match["label"] for match in shown] == [match["label"] for match in given]
    for ours, theirs in zip(shown, given, strict=True):
        assert ours["probability"] == pytest.approx(theirs["probability"], abs=0.02)
        assert ours["score"] == pytest.approx(theirs["score"], abs=0.02)


@pytest.mark.parametrize("command", [c for c in commands() if "curl" not in c])
def test_command_line_examples_run(place: Place, command: str):
    told = place.run("bash", "-euc", command)
    out = re.search(r"--out (\S+)", command)
    if out is None:
        (label,) = sample_labels(command)
        assert label in told
    else:
        rows = pyarrow.parquet.read_table(place.folder / out.group(1)).to_pylist()
        labels = {Path(row["file"]).name: row["label"] for row in rows}
        assert len(labels) == len([*SAMPLES.glob("*.png"), *SAMPLES.glob("*.jpg")])
        drawings = sorted(SAMPLES.glob("*.png"))
        right = [labels[path.name] == path.stem.replace("_", " ") for path in drawings]
        assert sum(right) >= 7, labels


@pytest.mark.parametrize("program", blocks("python"))
def test_python_examples_run(place: Place, program: str):
    (label,) = sample_labels(program)
    assert place.run(sys.executable, "-c", program).startswith(label)


def test_what_is_named_but_not_run_exists():
    not_run = [block for block in blocks("bash") if block.startswith(NOT_RUN)]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    named = {name for block in not_run for name in re.findall(r"\bmake ([\w-]+)", block)}
    named |= set(re.findall(r"`make ([\w-]+)`", README))
    assert named <= set(targets)
    assert {"run", "test", "demo", "check"} <= named


def test_every_room_of_the_tree_stands_in_the_readme():
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {"tests", "docs", "tools"}
    told = set(re.findall(r"^\| \[(\w+)/\]", README, re.M))
    assert rooms <= told


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda p: p.name
)
def test_every_path_that_a_page_names_exists(page: Path):
    text = page.read_text(encoding="utf-8")
    rooms = "storage|models|indexer|training|service|tests|benchmarks|docs|tools"
    paths = set(re.findall(rf"`((?:{rooms})/[\w./-]*)`", text))
    links = {link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link}
    missing = [path for path in paths if not (ROOT / path).exists()]
    missing += [link for link in links if not (page.parent / link).exists()]
    assert missing == []
