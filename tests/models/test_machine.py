"""What the machine offers, as the files of the kernel tell it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from models import machine


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("max 100000", None),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("400000 100000", 4),
        ("", None),
    ],
)
def test_a_containers_share(tmp_path: Path, text: str, cpus: int | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert machine._cgroup_cpus(tmp_path / "cpu.max") == cpus


def test_no_cgroup(tmp_path: Path) -> None:
    assert machine._cgroup_cpus(tmp_path / "cpu.max") is None


def test_the_count_is_within_what_there_is() -> None:
    assert 1 <= machine.cpu_count() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("model name : Some CPU\nflags : fpu avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile", True),
        ("Features : fp asimd bf16", True),
        ("flags : fpu avx2 avx512f\nbugs : avx512_bf16", False),
        ("", False),
    ],
)
def test_bf16_is_read_from_the_flags(
    tmp_path: Path, text: str, has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    machine.cpu_has_bf16.cache_clear()
    try:
        assert machine.cpu_has_bf16() is has
    finally:
        machine.cpu_has_bf16.cache_clear()
