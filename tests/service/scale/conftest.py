"""A Ray cluster for the tests of one module: it ends with them, and leaves nothing running."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.service.scale.processes import children, descendants, kill, title
from tests.service.servers import wait_for

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A machine whose memory others use must not make Ray end our workers.
    "RAY_memory_monitor_refresh_ms": "0",
    # A node that was killed is noticed after a second instead of fifteen.
    "RAY_health_check_period_ms": "200",
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",  # Ray's own
}


@dataclass(frozen=True)
class RayCluster:
    """A head without logical processors and two nodes of two: work happens on those.

    address: what `ray.init` takes
    """

    address: str
    process: subprocess.Popen[str]

    def raylets(self) -> list[int]:
        """One process a node, the head's first."""
        return [pid for pid in sorted(children(self.process.pid)) if "/raylet " in title(pid)]

    def workers(self, name: str) -> list[int]:
        """Worker processes whose title begins with `name`."""
        return [pid for raylet in self.raylets() for pid in self.workers_of(raylet, name)]

    def workers_of(self, raylet: int, name: str) -> list[int]:
        """Those of one node."""
        return [pid for pid in descendants(raylet) if title(pid).startswith(name)]

    def kill_node(self, raylet: int) -> None:
        """As if the machine lost its power."""
        kill([raylet, *descendants(raylet)])


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[RayCluster]:
    """A cluster on a folder of its own; afterwards none of its processes is left."""
    # Not in tmp_path: the names of Unix sockets may have 107 characters only.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    script = Path(__file__).with_name("cluster.py")
    log = (folder / "cluster.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, str(script), "0", "2", "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**os.environ, **ENVIRONMENT, "RAY_TMPDIR": str(folder)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, (folder / "cluster.log").read_text(errors="replace")
        yield RayCluster(json.loads(line)["address"], process)
        started = descendants(process.pid)
    finally:
        process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            kill([*descendants(process.pid), process.pid])
            process.wait()
        process.stdout.close()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)
    wait_for(lambda: not any(title(pid) for pid in started))
