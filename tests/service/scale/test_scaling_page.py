"""docs/scaling.md: its arithmetic follows from the rates that docs/benchmarks.md has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.batch.engines import ray as ray_engine

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "scaling.md").read_text(encoding="utf-8")
MEASURED = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
UNITS = {"million": 10**6, "billion": 10**9}
CORES, PRICE = 2, 0.04


def number(text: str) -> float:
    return float(text.replace(",", "").replace("$", ""))


def milliseconds(precision: str) -> float:
    """On two cores, from JPEG files, in batches of 64."""
    row = re.search(rf"\| \*from JPEG files:\* OpenVINO {precision} \|.*\| ([\d.]+) \(", MEASURED)
    assert row
    return float(row[1])


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_the_rates_are_the_measured_ones(precision):
    row = re.search(rf"^\| {precision} \| ([\d.]+) \| .* = ([\d.]+) \|$", PAGE, re.MULTILINE)
    assert row
    assert float(row[1]) == milliseconds(precision)
    assert float(row[2]) == pytest.approx(1000 / milliseconds(precision) / CORES, abs=0.05)


@pytest.mark.parametrize("images", ["1 million", "100 million", "10 billion"])
def test_the_costs_follow_from_them(images):
    row = re.search(rf"^\| {images} \| (.*) \|$", PAGE, re.MULTILINE)
    assert row
    hours, money, int8, example, _ = row[1].split(" | ")
    count, unit = images.split()
    total = int(count) * UNITS[unit]
    wanted = total * milliseconds("bf16") * CORES / 1000 / 3600
    assert number(hours) == pytest.approx(wanted, rel=0.01)
    assert number(money) == pytest.approx(wanted * PRICE, rel=0.02)
    int8_hours, int8_money = int8.split(", ")
    wanted_int8 = total * milliseconds("int8") * CORES / 1000 / 3600
    assert number(int8_hours) == pytest.approx(wanted_int8, rel=0.01)
    assert number(int8_money) == pytest.approx(wanted_int8 * PRICE, rel=0.02)
    cores, time = example.split(" cores: ")
    amount, unit = time.split()
    seconds = float(amount) * {"minutes": 60, "hours": 3600, "days": 86400}[unit]
    assert seconds == pytest.approx(wanted * 3600 / number(cores), rel=0.02)


def test_the_page_knows_the_engines_own_numbers():
    assert f"{ray_engine._WINDOW:,} blocks" in PAGE
