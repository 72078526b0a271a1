"""Decoding on threads or in processes: which keeps more processors at work?

    python -m benchmarks.batch_decode [--data ../shared/data] [--rounds 12]

Reads, decodes and preprocesses the same JPEG files on one thread, on as many threads as there are
processors, and in as many processes (which have to hand the pixels over), in turns.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

from benchmarks.http_sides import make_images
from models.image.preprocess import PreprocessConfig, Preprocessor
from models.machine import cpu_count
from service.batch import Item, Prepared, list_items, prepare

_PREPROCESS = Preprocessor(PreprocessConfig())
_SIZE = PreprocessConfig().size


def decode(item: Item) -> Prepared:
    return prepare(item, preprocess=_PREPROCESS, image_size=_SIZE, max_pixels=100_000_000)


def rates(items: list[Item], rounds: int) -> dict[str, float]:
    """Median images a second."""
    count = cpu_count()
    pools: dict[str, Executor] = {
        "1 thread": ThreadPoolExecutor(1),
        f"{count} threads": ThreadPoolExecutor(count),
        f"{count} processes": ProcessPoolExecutor(count),
    }
    found: dict[str, list[float]] = {name: [] for name in pools}
    for number in range(rounds + 1):  # the first to warm up
        for name, pool in pools.items():
            began = time.perf_counter()
            assert all(image.pixels is not None for image in pool.map(decode, items))
            if number:
                found[name].append(len(items) / (time.perf_counter() - began))
    for pool in pools.values():
        pool.shutdown()
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder that holds photos/*.jpg")
    parser.add_argument("--rounds", type=int, default=12)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(make_images(Path(folder) / "images", asked.data, count=100))
        items = list(list_items([str(Path(folder) / "images")]))
        for name, rate in rates(items, asked.rounds).items():
            print(f"{name:12} {rate:8.1f} images a second")


if __name__ == "__main__":
    main()
