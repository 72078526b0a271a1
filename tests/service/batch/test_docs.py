"""docs/batch.md says what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from service.batch import BLOCK_SIZE, Results
from service.batch.inputs import KINDS
from service.batch.rows import Row

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "batch.md").read_text(encoding="utf-8")


def table(head: str) -> str:
    """The first cells of a table's rows."""
    rows = PAGE.split(f"| {head} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return " ".join(row.split("|")[1] for row in rows)


def test_every_column_is_described():
    told = re.findall(r"`(\w+)`", table("column"))
    assert sorted(told) == sorted([*Row.__annotations__, "embedding"])


def test_every_kind_of_input_is_described():
    told = table("input")
    assert [kind for kind in KINDS if f"`{kind}`" not in told] == []


def test_figures_of_the_page_are_those_of_the_code():
    assert f"more than {Results(Path('r.csv')).shard_rows:,} rows" in PAGE
    assert f"for every {BLOCK_SIZE} images" in PAGE


def test_the_program_runs(tmp_path):
    (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)
    (tmp_path / "service").symlink_to(ROOT / "service")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "HOME": str(Path.home()), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "15 0\n"
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 15
