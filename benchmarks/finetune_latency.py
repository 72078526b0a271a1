"""Latency of classification while a fine-tuning job runs, beside the same server at rest.

    python -m benchmarks.finetune_latency [--seconds 20] [--rounds 3]

One client sends one drawing after the other; rest and job alternate, each round a server's own.
Prints the median and the 95th percentile of each, and the ratio of the medians of all rounds.
The aim is 1.5.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
import time
import zipfile
from dataclasses import dataclass

import httpx
import numpy as np
from PIL import Image

from models.machine import machine_name
from service.demo.__main__ import SAMPLES
from service.demo.child import serve_command, serving

AIM = 1.5
_CLASSES, _SHOTS = 4, 16
_RECIPE = "epochs: 1000000"  # longer than any measurement; cancelled at its end


@dataclass(frozen=True)
class Round:
    """Seconds of each request, at rest and while a job runs."""

    rest: list[float]
    busy: list[float]
    epochs: int


def archive() -> bytes:
    """A zip of coloured noise, four classes of 16: what is learnt doesn't matter here."""
    dice = np.random.default_rng(0)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for label in range(_CLASSES):
            colour = dice.integers(40, 216, size=3)
            for number in range(_SHOTS):
                # In blocks: finer noise is the same picture to whoever looks for near-duplicates.
                noise = dice.integers(-40, 40, size=(8, 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
                image = io.BytesIO()
                Image.fromarray((colour + noise).clip(0, 255).astype(np.uint8)).save(image, "PNG")
                packed.writestr(f"class {label}/{number}.png", image.getvalue())
    return out.getvalue()


def ask(client: httpx.Client, seconds: float) -> list[float]:
    """Classify drawings one after the other for so long."""
    pictures = [path.read_bytes() for path in sorted(SAMPLES.glob("*.png"))]
    found: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        client.post("/v1/classify", content=pictures[len(found) % len(pictures)]).raise_for_status()
        found.append(time.perf_counter() - began)
    return found


def one_round(client: httpx.Client, shots: bytes, method: str, seconds: float) -> Round:
    """Rest, then a job that trains."""
    ask(client, 2)  # warm up
    rest = ask(client, seconds)
    form = {"method": method, "recipe": _RECIPE, "name": "latency"}
    if method != "head":
        del form["recipe"]
    answer = client.post("/v1/finetunes", data=form, files={"archive": shots})
    answer.raise_for_status()
    url = answer.headers["location"]
    while not (job := client.get(url).json())["history"]:
        if job["finished"]:
            raise SystemExit(f"the job {job['state']}: {job['error']}")
        time.sleep(0.2)
    busy = ask(client, seconds)
    job = client.get(url).json()
    if job["state"] == "running":
        client.delete(url)
    else:
        print(f"  the job had ended ({job['state']}) before the measurement did")
    while not client.get(url).json()["finished"]:
        time.sleep(0.2)
    return Round(rest, busy, len(job["history"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", default="head", help="what the job trains")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    shots = archive()
    print(f"{machine_name()}; method {options.method}, {options.seconds:g} s each")
    rest: list[float] = []
    busy: list[float] = []
    for number in range(1, options.rounds + 1):
        with tempfile.TemporaryDirectory() as data:
            os.environ["CLIPDEX_DATA"] = data
            with (
                serving(serve_command(0)) as child,
                httpx.Client(base_url=child.url, timeout=60, trust_env=False) as client,
            ):
                found = one_round(client, shots, options.method, options.seconds)
        for name, values in (("at rest", found.rest), ("while a job trains", found.busy)):
            low, high = statistics.median(values), statistics.quantiles(values, n=20)[-1]
            print(f"round {number} {name:<19} p50 {low * 1e3:6.2f} ms  p95 {high * 1e3:6.2f} ms")
        print(f"round {number} the job did {found.epochs} epochs meanwhile")
        rest += found.rest
        busy += found.busy
    ratio = statistics.median(busy) / statistics.median(rest)
    verdict = "holds" if ratio <= AIM else "is missed"
    print(f"ratio of the medians {ratio:.2f}: the aim of {AIM} {verdict}")


if __name__ == "__main__":
    main()
