"""What the embedded model can do, measured from the shipped weights.

    python -m benchmarks.pictogram --data ../shared/data/pictograms

Every drawing of a style is classified among the names of all concepts, through the same encoder and
index that the service uses. The validation style (twemoji) was never trained on; the other styles
were, and stand here only to show the gap.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import time
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from indexer import CategoryIndex
from models import Encoder, load_encoder

VALIDATION_STYLE = "twemoji"
BATCH = 128
BINS = 15


@dataclass(frozen=True)
class StyleResult:
    """Accuracy on one style; shares in [0, 1].

    calibration_error: expected calibration error over 15 equal bins of the top-1 probability
    """

    style: str
    trained_on: bool
    drawings: int
    top1: float
    top5: float
    calibration_error: float


def measure_style(
    encoder: Encoder, index: CategoryIndex, archive: Path, names: dict[str, str]
) -> StyleResult:
    """Classify every named drawing of one style; the drawings keep their transparency."""
    with zipfile.ZipFile(archive) as zipped:
        entries = [e for e in sorted(zipped.namelist()) if Path(e).stem in names]
        truths = [names[Path(entry).stem] for entry in entries]
        hits: list[list[bool]] = []
        confidence: list[float] = []
        batches = range(0, len(entries), BATCH)
        for start in track(batches, archive.stem, console=Console(stderr=True), transient=True):
            chosen = entries[start : start + BATCH]
            images = [Image.open(io.BytesIO(zipped.read(entry))) for entry in chosen]
            vectors = encoder.encode_images(images)
            for truth, matches in zip(
                truths[start : start + BATCH], index.search(vectors, 5), strict=True
            ):
                hits.append([match.label == truth for match in matches])
                confidence.append(matches[0].probability)
    hit = np.array(hits)
    return StyleResult(
        style=archive.stem,
        trained_on=archive.stem != VALIDATION_STYLE,
        drawings=len(hit),
        top1=float(hit[:, 0].mean()),
        top5=float(hit.any(axis=1).mean()),
        calibration_error=_calibration_error(np.array(confidence), hit[:, 0]),
    )


def _calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Guo et al. 2017, equation 3: mean gap of accuracy and confidence, weighted by bin size."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [
        abs(correct[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean()
        for b in range(BINS)
        if (bins == b).any()
    ]
    return float(sum(gaps))


def one_core_milliseconds(backend: str) -> float:
    """Median time to encode one image, in a process of its own that is held to one core."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.pictogram", "--time-one-core", backend],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout)


def _time_one_core(backend: str) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    encoder = load_encoder("pictogram", backend=backend)
    image = Image.effect_noise((72, 72), 80).convert("RGB")
    times = []
    for _ in range(60):
        began = time.perf_counter()
        encoder.encode_images([image])
        times.append(1000 * (time.perf_counter() - began))
    print(statistics.median(times[10:]))


def main() -> None:
    """Print the table; `--json` for machines."""
    parser = argparse.ArgumentParser(description="Measure the embedded model.")
    parser.add_argument("--data", type=Path, help="folder of STYLE.zip and names.jsonl")
    parser.add_argument("--all-styles", action="store_true", help="the trained styles as well")
    parser.add_argument("--templates", default="pictogram", help="name of the template set")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--time-one-core", metavar="BACKEND", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.time_one_core:
        _time_one_core(arguments.time_one_core)
        return
    if arguments.data is None or not (arguments.data / "names.jsonl").is_file():
        sys.exit("give --data, the folder that holds names.jsonl and STYLE.zip")
    rows = (arguments.data / "names.jsonl").read_text(encoding="utf-8").splitlines()
    names = {row["id"]: row["name"] for row in map(json.loads, rows)}
    encoder = load_encoder("pictogram")
    index = CategoryIndex.build(list(names.values()), encoder, templates=arguments.templates)
    archives = [arguments.data / f"{VALIDATION_STYLE}.zip"]
    if arguments.all_styles:
        archives += [a for a in sorted(arguments.data.glob("*.zip")) if a not in archives]
    results = [measure_style(encoder, index, archive, names) for archive in archives]
    speed = {backend: one_core_milliseconds(backend) for backend in ("torch", "openvino")}
    if arguments.json:
        print(json.dumps({"styles": [asdict(r) for r in results], "one_core_ms": speed}))
        return
    table = Table(title=f"pictogram among {len(names):,} names, templates: {arguments.templates}")
    for column in ("style", "trained on", "drawings", "top-1", "top-5", "ECE"):
        table.add_column(column, justify="left" if column == "style" else "right", no_wrap=True)
    for r in results:
        cells = (f"{r.top1:.1%}", f"{r.top5:.1%}", f"{r.calibration_error:.1%}")
        table.add_row(r.style, "yes" if r.trained_on else "no", f"{r.drawings:,}", *cells)
    console = Console()
    console.print(table)
    for backend, milliseconds in speed.items():
        console.print(f"one image on one core, {backend}: {milliseconds:.1f} ms (median)")


if __name__ == "__main__":
    main()
