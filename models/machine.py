"""What this machine offers: processors that may be used, bf16 arithmetic, an NVIDIA driver.

Nothing here imports torch or OpenVINO.
"""

from __future__ import annotations

import math
import os
import platform
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")
# With none of these, bf16 is emulated and slower than fp32. ("bf16" is what Arm calls it.)
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def cpu_count() -> int:
    """Processors this process may use: its affinity, and its container's share if that is less."""
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    return max(1, min(allowed, _cgroup_cpus(_CGROUP_LIMIT) or allowed))


def _cgroup_cpus(limit: Path) -> int | None:
    """Whole processors that a cgroup v2 quota is worth; None where there is no quota."""
    try:
        quota, period = limit.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else math.ceil(int(quota) / int(period))


@cache
def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 matrices natively."""
    return bool(_BF16_FLAGS & _cpu_fields("flags", "Features"))


@cache
def machine_name() -> str:
    """The processor's name and how many of it may be used: what a measurement is valid for."""
    names = _cpu_fields("model name") or {platform.machine()}
    return f"{' '.join(sorted(names))}, {cpu_count()} CPUs"


def has_nvidia_driver() -> bool:
    """Whether a CUDA device can be expected; cheap, where asking torch would import it."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/dxg").exists()


def _cpu_fields(*keys: str) -> set[str]:
    """Words of the first line of /proc/cpuinfo that has one of the keys."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in keys:
            return {value.strip()} if key.strip() == "model name" else set(value.split())
    return set()
