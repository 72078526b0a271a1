"""docs/architecture.md: the files and names of its four walks exist, and its packages are all."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
WALKS = re.findall(r"^### (.*?)\n\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S)
_WHEEL = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]
PACKAGES = sorted(_WHEEL["build"]["targets"]["wheel"]["packages"])


def test_there_are_four_walks_of_about_ten_files():
    assert len(WALKS) == 4
    for title, walk in WALKS:
        assert 8 <= len(re.findall(r"^\d+\. ", walk, re.M)) <= 12, title


@pytest.mark.parametrize(("title", "walk"), WALKS, ids=[title for title, _ in WALKS])
def test_every_step_names_a_file_and_what_of_it_is_called(title: str, walk: str):
    for step in re.findall(r"^\d+\. .*$", walk, re.M):
        match = re.match(r"\d+\. `([\w/.]+\.py)`(?:, `(\w+)`)?: ", step)
        assert match, step
        path, name = ROOT / match[1], match[2]
        assert path.is_file(), step
        if name:
            defined = rf"^\s*(?:async def|def|class) {name}\b"
            assert re.search(defined, path.read_text(encoding="utf-8"), re.M), step


def test_every_path_on_the_page_exists():
    paths = re.findall(rf"`((?:{'|'.join(PACKAGES)}|tests|docs)/[\w./-]*)`", PAGE)
    assert len(paths) > 50
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_package_stands_in_the_table():
    table = PAGE.split("| package |", 1)[1].split("\n\n", 1)[0]
    assert sorted(re.findall(r"^\| `(\w+)/` \|", table, re.M)) == PACKAGES
