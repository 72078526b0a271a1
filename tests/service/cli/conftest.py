"""One small model and one data folder for all tests of the command line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from service.cli import run
from tests.service.fakes import picture


@dataclass
class Shell:
    """Runs commands in this process; what they print is in `out` and `err`."""

    folder: Path
    capture: pytest.CaptureFixture[str]
    out: str = ""
    err: str = ""

    def __call__(self, *arguments: str | Path, code: int = 0) -> str:
        self.capture.readouterr()
        found = run([str(argument) for argument in arguments])
        self.out, self.err = self.capture.readouterr()
        assert found == code, self.err
        return self.out

    def json(self, *arguments: str | Path, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code))

    def fails(self, *arguments: str | Path, code: int = 2) -> str:
        """The one error that a failing command prints, and nothing on stdout.

        On a slow machine lines of progress may stand before it.
        """
        assert self(*arguments, code=code) == ""
        *progress, error = self.err.splitlines(keepends=True)
        assert error.startswith("error: ")
        assert not any(line.startswith(("error", "Traceback", " ")) for line in progress)
        return error

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def picture(self, name: str, colour: str = "red") -> Path:
        return self.file(name, picture(colour, size=40))


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model-cache")


@pytest.fixture
def shell(
    tmp_path: Path,
    tiny_clip_dir: Path,
    model_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Shell:
    monkeypatch.setenv("CLIPDEX_MODEL", f"local-dir:{tiny_clip_dir}")
    monkeypatch.setenv("CLIPDEX_BACKEND", "torch")
    monkeypatch.setenv("CLIPDEX_PRECISION", "fp32")
    monkeypatch.setenv("CLIPDEX_CACHE", str(model_cache))
    monkeypatch.setenv("CLIPDEX_DATA", str(tmp_path / "data"))
    return Shell(tmp_path, capsys)
