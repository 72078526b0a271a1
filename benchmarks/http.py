"""Over HTTP, side by side: this service and the usual way to serve CLIP.

    python -m benchmarks.http [--data ../shared/data] [--quick] [--out build/bench]

A randomly initialised ViT-B/32 serves, because speed doesn't depend on the weights. Each side is a
process of its own; they take turns, at every number of clients, in rounds of alternating order. The
load generator is another process, and on a machine of two cores it takes its share of them: the
table says how much. All are sent photographs; everyday also what it is made for, the drawings in
service/samples. Prints a table, and writes http.json and http.png.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.http_report import judge, plot, show
from benchmarks.http_sides import (
    DRAWINGS,
    ROOT,
    Process,
    Side,
    infinity_side,
    make_images,
    make_model,
    make_transformers_model,
    our_side,
    running,
    usual_side,
)

CLIENTS = (1, 4, 16, 64)
BATCH = 16


@dataclass(frozen=True)
class Figures:
    """One side at one number of clients. Latencies in milliseconds."""

    side: str
    clients: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    answered: int
    refused: int
    broken: int
    load_generator_cores: float


def ask(process: Process, side: Side, clients: int, seconds: float) -> dict[str, Any]:
    """Run the load generator against one side."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.http_load", "--port", str(process.port)),
            *("--path", side.path, "--images", str(side.images), "--clients", str(clients)),
            *("--seconds", str(seconds), "--warmup", str(min(3.0, seconds / 2))),
        ],
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def figures(side: str, clients: int, runs: list[dict[str, Any]]) -> Figures:
    """All rounds of one side at one number of clients together."""
    seconds = np.array([value for run in runs for value in run["answered"]])
    took = sum(run["seconds"] for run in runs)
    p50, p99 = np.percentile(seconds, (50, 99)) if len(seconds) else (float("nan"),) * 2
    return Figures(
        side,
        clients,
        requests_per_second=len(seconds) / took,
        p50_ms=1000 * float(p50),
        p99_ms=1000 * float(p99),
        answered=len(seconds),
        refused=sum(run["refused"] for run in runs),
        broken=sum(run["broken"] for run in runs),
        load_generator_cores=statistics.mean(run["load_generator_cores"] for run in runs),
    )


def peak_memory_mb(pid: int) -> float:
    """The most memory that a process has held, in megabytes."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1000
    raise ValueError("this kernel doesn't tell VmHWM")


def encoder_rate(side: Side, seconds: float) -> float:
    """Images a second of the encoder alone, in batches, in a process of its own."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.http", "--encoder-only", side.model),
            *("--precision", side.precision, "--seconds", str(seconds)),
        ],
        check=True,
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, **side.environment},
    )
    return float(done.stdout)


def measure_encoder(model: str, precision: str, seconds: float) -> float:
    """Images a second from ready pixels, in batches of 16."""
    from models import load_encoder

    cache = Path(os.environ["CLIPDEX_CACHE"])
    encoder = load_encoder(model, precision=precision, cache_dir=cache)
    height, width = encoder.image_size
    pixels = np.random.default_rng(0).normal(size=(BATCH, 3, height, width)).astype(np.float32)
    encoder.encode_pixels(pixels)
    began = time.perf_counter()
    batches = 0
    while time.perf_counter() - began < seconds:
        encoder.encode_pixels(pixels)
        batches += 1
    return BATCH * batches / (time.perf_counter() - began)


def start_seconds(side: Side, log: Path, times: int) -> tuple[float, float]:
    """Seconds from the command to the first ready answer, at the first start and after (median)."""
    with running(side, log) as process:
        cold = process.ready_s
    warm = []
    for _ in range(times):
        with running(side, log) as process:
            warm.append(process.ready_s)
    return cold, statistics.median(warm)


def run_all(sides: list[Side], work: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Every side at every number of clients, in rounds of alternating order."""
    clients = (1, 4, 16) if given.quick else CLIENTS
    seconds, rounds = (3.0, 1) if given.quick else (given.seconds, given.rounds)
    log = work / "servers.log"
    starts: dict[str, dict[str, float]] = {}
    for side in sides:
        say(f"starting {side.key}")
        cold, warm = start_seconds(side, log, 1 if given.quick else 3)
        starts[side.key] = {"first_s": cold, "warm_s": warm}
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(running(side, log)) for side in sides]
        pairs = list(zip(sides, processes, strict=True))
        for number in clients:
            for turn in range(rounds):
                for side, process in pairs if turn % 2 == 0 else reversed(pairs):
                    say(f"{side.key}, {number} clients, round {turn + 1} of {rounds}")
                    run = ask(process, side, number, seconds)
                    runs.setdefault((side.key, number), []).append(run)
        memory = {side.key: peak_memory_mb(process.pid) for side, process in pairs}
    rates = {}
    for side in sides:
        if side.ours:
            say(f"{side.key}, encoder alone")
            rates[side.key] = encoder_rate(side, seconds)
    return {
        "figures": [asdict(figures(key, number, found)) for (key, number), found in runs.items()],
        "start_to_ready_s": starts,
        "peak_memory_mb": memory,
        "encoder_only_images_per_second": rates,
    }


def cpu_name() -> str:
    """What the processor calls itself."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def say(line: str) -> None:
    """Progress on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--data", type=Path, help="folder with photos/*.jpg; made pictures if absent"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench")
    parser.add_argument("--quick", action="store_true", help="three seconds each, to 16 clients")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--infinity", type=Path, metavar="PYTHON", help="one that has infinity-emb")
    parser.add_argument("--encoder-only", metavar="MODEL", help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="auto", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.encoder_only:
        print(measure_encoder(given.encoder_only, given.precision, given.seconds))
        return
    data = given.data if given.data is not None and given.data.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="clipdex-bench-") as folder:
        work = Path(folder)
        say("making a ViT-B/32 with random weights")
        model = make_model(work / "vit-b-32")
        images = work / "images"
        described = make_images(images, data)
        sides = [usual_side(model, images), our_side("clipdex", model, "auto", work, images)]
        if importlib.util.find_spec("nncf") is not None:
            sides.append(our_side("clipdex int8", model, "int8", work, images))
        sides.append(our_side("clipdex everyday", "everyday", "auto", work, images))
        drawn = our_side("clipdex everyday, drawings", "everyday", "auto", work, DRAWINGS)
        sides.append(drawn)
        if given.infinity is not None:
            folder = make_transformers_model(work / "clip")
            sides.append(infinity_side(given.infinity, folder, images))
        results = run_all(sides, work, given)
    results["images"] = described
    results["machine"] = {"cpu": cpu_name(), "cores": len(os.sched_getaffinity(0))}
    results["machine"]["python"] = platform.python_version()
    results["promises"] = judge(results)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "http.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    plot(results, given.out / "http.png")
    show(results)
    print(f"{given.out / 'http.json'} and {given.out / 'http.png'} hold the same")


if __name__ == "__main__":
    main()
