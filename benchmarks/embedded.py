"""What the embedded model can do, measured from the shipped weights.

    python -m benchmarks.embedded --data ../shared/data

Everything goes the way that the service goes: `load_encoder`, `CategoryIndex`, template sets.
Photographs held out of all training, drawings of a style that was never trained on, and labels of
a user's own. What was trained on stands in a row that says so.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.embedded_data import (
    Pictures,
    cifar,
    drawings,
    large_photographs,
    small_photographs,
)
from indexer import CategoryIndex, Match
from models import Encoder, load_encoder

EMBEDDED_MODEL = "everyday"
EMBEDDED_FOLDER = Path(__file__).parents[1] / "models" / EMBEDDED_MODEL
BATCH = 64
BINS = 15
TEMPLATES = "everyday"
WORDS = Path(__file__).with_name("everyday_words.json")


@dataclass(frozen=True)
class Figure:
    """One row of the table; shares in [0, 1].

    calibration_error: over 15 equal bins of the top-1 probability, where it is asked for
    wanted: the least top-1 and top-5 that the model is to reach, None where only reported
    """

    name: str
    images: int
    labels: int
    top1: float
    top5: float
    calibration_error: float
    wanted: tuple[float, float | None] | None = None

    @property
    def reached(self) -> bool | None:
        """Whether both are at least what is wanted."""
        if self.wanted is None:
            return None
        least1, least5 = self.wanted
        return self.top1 >= least1 and (least5 is None or self.top5 >= least5)


class Bench:
    """The encoder, the data, and every image's vector once.

    data: the folder of photos/, pictograms/, words/ ...
    """

    def __init__(self, encoder: Encoder, data: Path) -> None:
        self.encoder, self.data = encoder, data
        lines = (data / "words" / "imagenet.jsonl").read_text(encoding="utf-8").splitlines()
        self.classes: list[dict[str, Any]] = [json.loads(line) for line in lines]
        names = (data / "pictograms" / "names.jsonl").read_text(encoding="utf-8").splitlines()
        self.concepts: list[dict[str, Any]] = [json.loads(line) for line in names]
        with gzip.open(data / "words" / "nouns.jsonl.gz", "rt", encoding="utf-8") as file:
            self.synsets = {row["wnid"]: row["words"] for row in map(json.loads, file)}
        self.name_of = {row["wnid"]: row["name"] for row in self.classes}
        self.vectors = cache(self._vectors)

    def _vectors(self, load: Callable[[Path], Pictures]) -> tuple[np.ndarray, list[str]]:
        pictures = load(self.data)
        parts = []
        starts = range(0, len(pictures.images), BATCH)
        for start in track(starts, pictures.name, console=Console(stderr=True), transient=True):
            images = [open_image() for open_image in pictures.images[start : start + BATCH]]
            parts.append(self.encoder.encode_images(images))
        return np.concatenate(parts), pictures.truths

    def figure(
        self,
        name: str,
        vectors: np.ndarray,
        truths: Sequence[frozenset[str]],
        labels: Sequence[str],
        *,
        wanted: tuple[float, float | None] | None = None,
    ) -> Figure:
        """Classify vectors [N, D] among labels; truths: the right labels of each."""
        index = CategoryIndex.build(list(labels), self.encoder, templates=TEMPLATES)
        answers: list[list[Match]] = index.search(vectors, min(5, len(labels)))
        hit = np.array(
            [[m.label in t for m in a] for a, t in zip(answers, truths, strict=True)], bool
        )
        confidence = np.array([answer[0].probability for answer in answers])
        return Figure(
            name,
            len(hit),
            len(labels),
            float(hit[:, 0].mean()),
            float(hit.any(axis=1).mean()),
            calibration_error(confidence, hit[:, 0]),
            wanted,
        )

    # ---- the rows ------------------------------------------------------------------------

    def photographs(self) -> list[Figure]:
        """Large photographs among all 1,000 names, CIFAR-10 and the small ones."""
        vectors, wnids = self.vectors(large_photographs)
        held = np.array([truth.startswith("held ") for truth in wnids])
        truths = [self.name_of[truth.split()[-1]] for truth in wnids]
        # Some classes are called alike ("missile"): one label for both.
        names = list(dict.fromkeys(row["name"] for row in self.classes))
        figures = [
            self.figure(
                title,
                vectors[rows],
                [frozenset({truths[row]}) for row in np.flatnonzero(rows)],
                names,
                wanted=wanted,
            )
            for title, rows, wanted in (
                ("held-out photographs, 1,000 names", held, (0.80, 0.94)),
                ("  the 400 that were not held out", ~held, None),
            )
        ]
        vectors, words = self.vectors(cifar)
        figures.append(
            self.figure(
                "CIFAR-10 val (32 px), its ten words",
                vectors,
                [frozenset({word}) for word in words],
                sorted(set(words)),
                wanted=(0.65, None),
            )
        )
        vectors, wnids = self.vectors(small_photographs)
        labels = [self.name_of[wnid] for wnid in sorted(set(wnids))]
        right = [frozenset({self.name_of[wnid]}) for wnid in wnids]
        figures.append(
            self.figure(
                "photos-64, 20 held out a class, 200 names",
                vectors,
                right,
                labels,
                wanted=(0.60, None),
            )
        )
        return figures

    def drawings(self) -> list[Figure]:
        """twemoji among all names, English and Korean."""
        vectors, ids = self.vectors(drawings)
        by_id = {row["id"]: row for row in self.concepts}
        english = self.figure(
            "twemoji (never trained on), all names",
            vectors,
            [frozenset({by_id[id_]["name"]}) for id_ in ids],
            [row["name"] for row in self.concepts],
            wanted=(0.75, 0.92),
        )
        named = np.array([by_id[id_]["name_ko"] is not None for id_ in ids])
        korean = self.figure(
            "  by their Korean names",
            vectors[named],
            [frozenset({by_id[i]["name_ko"]}) for i, k in zip(ids, named, strict=True) if k],
            list(dict.fromkeys(row["name_ko"] for row in self.concepts if row["name_ko"])),
            wanted=(0.65, 0.85),
        )
        return [english, korean]

    def everyday(self) -> list[Figure]:
        """60 words that photographs and drawings show, in two languages."""
        rows = json.loads(WORDS.read_text(encoding="utf-8"))["everyday"]
        photos, wnids = self.vectors(large_photographs)
        drawn, ids = self.vectors(drawings)
        name_of_id = {row["id"]: row["name"] for row in self.concepts}
        figures = []
        for key, language in (("word", "English"), ("korean", "Korean")):
            labels = [row[key] for row in rows]
            by_wnid = self._right_labels({row[key]: row["classes"] for row in rows})
            by_name: dict[str, set[str]] = {}
            for row in rows:
                for name in row["drawings"]:
                    by_name.setdefault(name, set()).add(row[key])
            right_drawings = [frozenset(by_name.get(name_of_id[id_], ())) for id_ in ids]
            held = [
                by_wnid.get(w.split()[-1], frozenset()) if w.startswith("held ") else frozenset()
                for w in wnids
            ]
            every = [by_wnid.get(w.split()[-1], frozenset()) for w in wnids]
            for title, vectors, right in (
                ("photographs", photos, every),
                ("held-out photographs", photos, held),
                ("twemoji", drawn, right_drawings),
            ):
                kept = np.array([bool(truth) for truth in right])
                figures.append(
                    self.figure(
                        f"60 everyday words, {language}: {title}",
                        vectors[kept],
                        [truth for truth in right if truth],
                        labels,
                        wanted=(0.70, None),
                    )
                )
        return figures

    def own_labels(self) -> list[Figure]:
        """Five sets of labels as a user writes them; several may be right for a photograph."""
        photos, wnids = self.vectors(large_photographs)
        figures = []
        for name, labels in json.loads(WORDS.read_text(encoding="utf-8"))["sets"].items():
            by_wnid = self._right_labels(labels)
            right = [by_wnid.get(wnid.split()[-1], frozenset()) for wnid in wnids]
            kept = np.array([bool(truth) for truth in right])
            figures.append(
                self.figure(
                    f"own labels: {name}",
                    photos[kept],
                    [truth for truth in right if truth],
                    list(labels),
                    wanted=(0.70, None),
                )
            )
        return figures

    def _right_labels(self, labels: dict[str, list[str]]) -> dict[str, frozenset[str]]:
        """wnid -> the labels that name it."""
        found: dict[str, set[str]] = {}
        for label, words in labels.items():
            for word in words:
                for wnid in self._classes_of(word):
                    found.setdefault(wnid, set()).add(label)
        return {wnid: frozenset(right) for wnid, right in found.items()}

    def _classes_of(self, word: str) -> list[str]:
        """Classes by name, else by wnid (their own or a hypernym's), else by any synonym."""
        rows = [row for row in self.classes if row["name"] == word]
        rows = rows or [r for r in self.classes if word == r["wnid"] or word in r["hypernyms"]]
        if not rows:
            rows = [
                row
                for row in self.classes
                if word in row["synonyms"]
                or any(word in self.synsets[wnid] for wnid in row["hypernyms"])
            ]
        if not rows:
            raise ValueError(f"{WORDS.name}: no class is called {word!r}")
        return [row["wnid"] for row in rows]


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Guo et al. 2017, equation 3: mean gap of accuracy and confidence, weighted by bin size."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [
        abs(correct[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean()
        for b in range(BINS)
        if (bins == b).any()
    ]
    return float(sum(gaps))


def one_core_milliseconds(model: str, backend: str) -> float:
    """Median time to encode one image, in a process of its own that is held to one core."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.embedded",
            "--model",
            model,
            "--time-one-core",
            backend,
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout)


def _time_one_core(model: str, backend: str) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    encoder = load_encoder(model, backend=backend)
    image = Image.effect_noise((500, 375), 80).convert("RGB")
    times = []
    for _ in range(60):
        began = time.perf_counter()
        encoder.encode_images([image])
        times.append(1000 * (time.perf_counter() - began))
    print(statistics.median(times[10:]))


def recorded_separate_run(folder: Path) -> dict[str, Any] | None:
    """What the training wrote down of its run without the words of 200 classes."""
    path = folder / "training_log.jsonl"
    if not path.is_file():
        return None
    records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    found = [record for record in records if record.get("stage") == "held-out words"]
    return found[-1] if found else None


def main() -> None:
    """Print the table; `--json` for machines."""
    parser = argparse.ArgumentParser(description="Measure the embedded model.")
    parser.add_argument("--data", type=Path, help="folder of photos/, pictograms/, words/ ...")
    parser.add_argument(
        "--model", default=EMBEDDED_MODEL, help="everyday, or local-dir:FOLDER to compare"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--time-one-core", metavar="BACKEND", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.time_one_core:
        _time_one_core(arguments.model, arguments.time_one_core)
        return
    if arguments.data is None or not (arguments.data / "words" / "imagenet.jsonl").is_file():
        sys.exit("give --data, the folder that holds photos/, pictograms/ and words/")
    bench = Bench(load_encoder(arguments.model), arguments.data)
    figures = bench.photographs() + bench.drawings() + bench.everyday() + bench.own_labels()
    backends = ("torch", "openvino")
    speed = {backend: one_core_milliseconds(arguments.model, backend) for backend in backends}
    folder = _folder(arguments.model)
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    separate = recorded_separate_run(folder)
    if arguments.json:
        print(
            json.dumps(
                {
                    "figures": [asdict(figure) for figure in figures],
                    "held_out_words": separate,
                    "one_core_ms": speed,
                    "folder_mb": size,
                }
            )
        )
        return
    console = Console()
    console.print(_table(arguments.model, figures))
    if separate is not None:
        console.print(f"words of 200 classes held out (a separate run's record): {separate}")
    for backend, milliseconds in speed.items():
        console.print(f"one image on one core, {backend}: {milliseconds:.1f} ms (median)")
    console.print(f"folder: {size:.1f} MB")


def _folder(model: str) -> Path:
    prefix = "local-dir:"
    return Path(model.removeprefix(prefix)) if model.startswith(prefix) else EMBEDDED_FOLDER


def _table(model: str, figures: Sequence[Figure]) -> Table:
    table = Table(title=f"{model}, templates: {TEMPLATES}")
    for column in ("figure", "images", "labels", "top-1", "top-5", "ECE", "wanted", ""):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for f in figures:
        wanted = "" if f.wanted is None else " / ".join(f"{w:.0%}" for w in f.wanted if w)
        mark = {None: "", True: "yes", False: "no"}[f.reached]
        shares = (f"{f.top1:.1%}", f"{f.top5:.1%}", f"{f.calibration_error:.1%}")
        table.add_row(f.name, f"{f.images:,}", f"{f.labels:,}", *shares, wanted, mark)
    return table


if __name__ == "__main__":
    main()
