"""`clipdex classify --out` beside a plain open_clip loop over the same folder.

    python -m benchmarks.batch [--data ../shared/data] [--quick] [--out build/bench]

Four figures of each model, measured in turns: the encoder alone (pixels in memory), decoding alone
(files to pixels on every processor), the whole run (list, read, decode, encode, search, journal,
results), and a loop as one would write it: open_clip in eager fp32, images of 32 at a time. Where
encoder and decoder share the same processors, no program can do better than both one after the
other: that bound stands beside what was reached.

Then memory: peak resident size of a run over 2,000 small images and of one over 20,000, each in a
process of its own. The folders are made once, below .cache/, from the photographs of --data
(crops of them, encoded anew) or, without any, from pictures that cost a decoder as much. The loop
is measured on the first images of the folder only; the table says on how many. Prints a table and
writes batch.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.batch_folders import make_folder
from benchmarks.batch_sides import Loop, Ours
from benchmarks.contenders import Contender, in_turn, machine, make_model, running

EMBEDDED = "everyday"
WANTED_SHARE = 0.9
WANTED_GROWTH = 1.1


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    photos, small: images of the two folders; loop, decode: of them for these figures
    seconds: of each of the encoder's figures
    cache: of converted models; None for the user's
    """

    photos: int
    small: int
    loop: int
    decode: int
    seconds: float
    cache: str | None


def speed(model: str, photos: Path, out: Path, sizes: Sizes, rounds: int) -> dict[str, Any]:
    """One model's four rates, images a second, and the peak memory of both sides."""
    ours = Contender(f"clipdex {model}", Ours, model, sizes.cache)
    loop = Contender(f"loop {model}", Loop, model)
    found: dict[str, list[float]] = {"encoder": [], "decode": [], "run": [], "loop": []}
    with running(ours, loop):
        facts = ours.call("facts")
        loop.call("facts")
        for number in range(rounds):
            for side in in_turn((ours, loop), number):
                if side is loop:
                    found["loop"].append(loop.call("run", str(photos), sizes.loop))
                else:
                    # The encoder before and after: what slows the machine down shows in both.
                    before = ours.call("encoder", str(photos), sizes.seconds)
                    found["run"].append(ours.call("run", str(photos), str(out)))
                    after = ours.call("encoder", str(photos), sizes.seconds)
                    found["encoder"].append(statistics.harmonic_mean([before, after]))
                    found["decode"].append(ours.call("decode", str(photos), sizes.decode))
            print(f"{model}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        memory = {"run": ours.call("peak_memory_mb"), "loop": loop.call("peak_memory_mb")}
    rates = {kind: statistics.median(values) for kind, values in found.items()}
    bound = 1 / (1 / rates["encoder"] + 1 / rates["decode"])
    return {
        "model": model,
        **facts,
        "images": sizes.photos,
        "loop_images": sizes.loop,
        "images_per_second": rates,
        "rounds": found,
        "share_of_encoder": rates["run"] / rates["encoder"],
        "bound": bound,
        "share_of_bound": rates["run"] / bound,
        "times_the_loop": rates["run"] / rates["loop"],
        "peak_memory_mb": memory,
    }


def memory(small: Path, out: Path, sizes: Sizes) -> dict[str, Any]:
    """Peak memory over few and many images, everyday, each in a fresh process."""
    figures: list[dict[str, float]] = []
    for count in (sizes.small // 10, sizes.small):
        side = Contender(f"{count} images", Ours, EMBEDDED, sizes.cache)
        with running(side):
            rate = side.call("run", str(small), str(out), count)
            peak = side.call("peak_memory_mb")
            figures.append({"images": count, "peak_memory_mb": peak, "images_per_second": rate})
        print(f"memory: {count} images", file=sys.stderr, flush=True)
    growth = figures[1]["peak_memory_mb"] / figures[0]["peak_memory_mb"]
    return {"runs": figures, "growth": growth}


def measure(out: Path, data: Path | None, cache: Path, *, quick: bool) -> dict[str, Any]:
    """Everything."""
    # The other benchmarks' cache: which backend is quicker was measured for it on a quiet machine.
    sizes = Sizes(2000, 20_000, loop=200, decode=500, seconds=8, cache=str(out / "cache"))
    if quick:
        sizes = Sizes(64, 600, loop=16, decode=64, seconds=1, cache=None)
    photos = make_folder(cache / f"photos-{sizes.photos}", data, sizes.photos, small=False)
    small = make_folder(cache / f"small-{sizes.small}", data, sizes.small, small=True)
    models = [EMBEDDED] if quick else [EMBEDDED, make_model(out / "ViT-B-32")]
    speeds = [
        # A ViT takes a minute for the folder; the small model is done in seconds.
        speed(model, photos, out, sizes, rounds=1 if quick or model != EMBEDDED else 3)
        for model in models
    ]
    return {
        "machine": machine(),
        "pictures": "photographs" if data is not None else "made pictures",
        "speed": speeds,
        "memory": memory(small, out, sizes),
    }


def show(results: dict[str, Any]) -> None:
    """The tables."""
    print(f"\n{results['machine']['processor']}, {results['pictures']}\n")
    print(
        "| model | images | encoder alone | decode alone | whole run | share | bound | of it |"
        " loop | times |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in results["speed"]:
        rate = row["images_per_second"]
        name = Path(row["model"]).name
        print(
            f"| {name} {row['backend']} {row['precision']} | {row['images']:,} |"
            f" {rate['encoder']:,.1f} /s | {rate['decode']:,.1f} | {rate['run']:,.1f} |"
            f" {row['share_of_encoder']:.0%} | {row['bound']:,.1f} | {row['share_of_bound']:.0%} |"
            f" {rate['loop']:,.1f} (of {row['loop_images']:,}) | {row['times_the_loop']:.1f} |"
        )
    print("\n| small images, everyday | whole run | peak memory |\n| ---: | ---: | ---: |")
    for run in results["memory"]["runs"]:
        print(
            f"| {run['images']:,} | {run['images_per_second']:,.1f} /s |"
            f" {run['peak_memory_mb']:,.0f} MB |"
        )
    print("\n| promise | wanted | measured |\n| --- | ---: | ---: |")
    for row in results["speed"]:
        kept = "" if row["share_of_encoder"] >= WANTED_SHARE else " (missed)"
        print(
            f"| share of the encoder's rate, {Path(row['model']).name} | {WANTED_SHARE:.0%} |"
            f" {row['share_of_encoder']:.0%}{kept} |"
        )
    growth = results["memory"]["growth"]
    kept = "" if growth <= WANTED_GROWTH else " (missed)"
    print(f"| peak memory, ten times as many images | x {WANTED_GROWTH} | x {growth:.2f}{kept} |")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder that holds photos/*.jpg")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/batch"))
    parser.add_argument("--quick", action="store_true", help="a minute, for a first impression")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    has_photos = asked.data is not None and any((asked.data / "photos").glob("*.jpg"))
    data = asked.data if has_photos else None
    results = measure(asked.out, data, asked.cache, quick=asked.quick)
    show(results)
    (asked.out / "batch.json").write_text(json.dumps(results, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
