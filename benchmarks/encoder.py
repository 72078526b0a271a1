"""The image encoder, side by side: open_clip as it is used, and this project's backends.

    python -m benchmarks.encoder [--data ../shared/data] [--quick] [--out build/bench]

A randomly initialised ViT-B/32 is measured, because speed doesn't depend on the weights. Each side
is a process of its own; they take turns at every batch size, in rounds of alternating order.
"encoder" begins with float pixels, "from files" with the bytes of JPEG files. Prints a table, and
writes encoder.json and encoder.png.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender, in_turn, machine, make_model, running
from benchmarks.encoder_report import OPEN_CLIP, judge, plot, show
from benchmarks.encoder_sides import MOST_AT_ONCE, Eager, Ours
from benchmarks.http_sides import make_images
from models.image.parity import min_cosine
from models.machine import cpu_has_bf16, has_nvidia_driver

BATCHES = (1, 4, 16, MOST_AT_ONCE)


def sides(model_id: str, files: list[str], cache: Path) -> list[Contender]:
    """open_clip and every way of ours that this machine can run."""
    if has_nvidia_driver():
        ways = [("torch", "bf16"), ("torch", "fp16"), ("torch", "fp32")]
    else:
        ways = [("torch", "fp32"), ("openvino", "fp32")]
        ways += [("openvino", "bf16")] if cpu_has_bf16() else []
        ways += [("openvino", "int8")] if find_spec("nncf") else []
    ours = [
        Contender(f"{backend} {precision}", Ours, model_id, files, backend, precision, str(cache))
        for backend, precision in ways
    ]
    return [Contender(OPEN_CLIP, Eager, model_id, files), *ours]


def measure(
    contenders: list[Contender], *, batches: tuple[int, ...], rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """A row for each side, kind and batch size, with the milliseconds an image of each round."""
    rows: dict[tuple[str, str, int], dict[str, Any]] = {}
    for number in range(rounds):
        for kind in ("encoder", "from_files"):
            for batch in batches:
                for contender in in_turn(contenders, number):
                    runs = contender.call(kind, batch, seconds)
                    row = rows.setdefault(
                        (contender.name, kind, batch),
                        {"side": contender.name, "kind": kind, "batch": batch, "rounds_ms": []},
                    )
                    row["rounds_ms"].append(statistics.median(runs) / batch * 1e3)
                    print(f"round {number + 1}/{rounds} {kind} batch {batch}", file=sys.stderr)
    for row in rows.values():
        row["ms_per_image"] = statistics.median(row["rounds_ms"])
    return list(rows.values())


def run(out: Path, data: Path | None, *, quick: bool) -> dict[str, Any]:
    """Measure everything."""
    batches = BATCHES[:2] + BATCHES[2:3] if quick else BATCHES
    rounds, seconds = (1, 0.5) if quick else (3, 4.0)
    model_id = make_model(out / "ViT-B-32")
    with tempfile.TemporaryDirectory() as folder:
        pictures = make_images(Path(folder) / "images", data, count=8 if quick else 64)
        files = sorted(str(file) for file in (Path(folder) / "images").iterdir())
        contenders = sides(model_id, files, out / "cache")
        with running(*contenders):
            eager, *ours = contenders
            device = eager.call("device")
            facts = {side.name: side.call("facts") for side in ours}
            rows = measure(contenders, batches=batches, rounds=rounds, seconds=seconds)
            vectors = {side.name: side.call("vectors") for side in ours}
            reference = vectors["torch fp32"]
            for name, own in vectors.items():
                facts[name]["least_cosine"] = min_cosine(own, reference)
            results: dict[str, Any] = {
                "machine": machine(),
                "device": device,
                "pictures": pictures,
                "rows": rows,
                "auto": "torch bf16" if device == "cuda" else _quickest(rows, without="int8"),
                "ceiling": _ceilings(eager, rows, facts, seconds),
            }
            if device == "cpu":
                fp32 = next(side for side in ours if side.name == "openvino fp32")
                results["large_jpegs"] = fp32.call("large_jpegs", 4 if quick else len(files))
            results["sides"] = {
                side.name: {
                    **facts.get(side.name, {}),
                    "peak_memory_mb": side.call("peak_memory_mb"),
                }
                for side in contenders
            }
    results["promises"] = judge(results)
    return results


def _quickest(rows: list[dict[str, Any]], *, without: str) -> str:
    """Our side that `auto` would take: the quickest, int8 left out."""
    score: dict[str, float] = {}
    for row in rows:
        ours = row["side"] != OPEN_CLIP and without not in row["side"]
        if ours and row["kind"] == "encoder":
            score[row["side"]] = score.get(row["side"], 0.0) + math.log(row["ms_per_image"])
    return min(score, key=lambda side: score[side])


def _ceilings(
    eager: Contender, rows: list[dict[str, Any]], facts: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """What share of its precision's matrix-product rate each side reaches at its best batch."""
    flops = eager.call("flops")
    rates: dict[str, float] = {}
    out = {}
    for name, fact in facts.items():
        precision = fact["precision"]
        if precision == "int8":
            continue  # torch has no product of int8 matrices on a CPU to compare with
        if precision not in rates:
            rates[precision] = eager.call("ceiling", precision, seconds)
        best = min(r["ms_per_image"] for r in rows if (r["side"], r["kind"]) == (name, "encoder"))
        reached = flops / (best / 1e3)
        out[name] = {
            "matrix_product_gflops": rates[precision] / 1e9,
            "reached_gflops": reached / 1e9,
            "share": reached / rates[precision],
        }
    return out


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description="Measure the image encoder side by side.")
    parser.add_argument("--data", type=Path, help="folder with photos/; made pictures without it")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--quick", action="store_true", help="few runs: to see that it works")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = arguments.data if arguments.data and arguments.data.is_dir() else None
    results = run(arguments.out.resolve(), data, quick=arguments.quick)
    text = json.dumps(results, indent=1)
    (arguments.out / "encoder.json").write_text(text + "\n", encoding="utf-8")
    plot(results, arguments.out / "encoder.png")
    show(results)


if __name__ == "__main__":
    main()
