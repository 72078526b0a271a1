"""The wheel carries what it must, and the console script finds our packages, not foreign ones."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("storage", "models", "indexer", "training", "service")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_every_tracked_source_file_is_in_the_wheel(wheel: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert set(tracked) <= packed
    assert "models/everyday/open_clip_model.safetensors" in packed


def test_the_embedded_model_is_at_most_32_mb(wheel: Path) -> None:
    entries = zipfile.ZipFile(wheel).infolist()
    size = sum(e.file_size for e in entries if e.filename.startswith("models/everyday/"))
    assert 1_000_000 < size <= 32_000_000


def test_the_wheel_may_not_be_uploaded(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
    assert "Classifier: Private :: Do Not Upload" in archive.read(metadata).decode()


def test_the_console_script_runs_our_packages_from_any_folder(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("clipdex")
    done = subprocess.run(
        [script, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "classify" in done.stdout
    where = "import models, indexer, training, service; print(models.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert Path(found) == ROOT / "models" / "__init__.py"
