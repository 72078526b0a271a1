"""Fine-tuning against zero-shot, at 1 to 16 images a class: `make finetune-proof`.

    python -m benchmarks.finetune_proof --data ../shared/data [--page docs/finetuning.md]

Three tasks for the embedded model, `everyday`: CIFAR-10 (photographs, which it was never made
for), and ten kinds of drawings in twemoji, the style that it was not trained on. The kinds are
asked for twice: by the keywords that its captions were made of (words that it knows, for these very
concepts in other styles), and by words of one's own. Every method goes the way that finetune_folder
goes; rates and strengths are chosen within the support set. The test images are looked at once, at
the end. Results are kept cell by cell, so a run that was stopped goes on.

CIFAR-10 also stands in one ranking with the default index's other categories, as it would be
served there: a head learns against their words, without images. (Heads alone, to save the time of
the weight methods' cells.)

Retention: twemoji's drawings of 200 concepts that are none of the classes, among their 200 names.
One half may choose a strength, the other half is what the table tells. In an index they are ranked
together with the taught classes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.finetune_page import Cell, passed, tables, write_page
from indexer import resolve_templates
from models import Encoder, load_encoder
from service.serving.core import CATEGORIES
from training import Dataset, ImageFolder, Samples, encode, zero_shot
from training.data import Retention
from training.finetune import METHODS, head_recipe
from training.judging.choice import choose_strength
from training.judging.metrics import ranked_logits, score
from training.judging.retention import head_retention, tower_retention
from training.loop import fit
from training.loop.facts import logits_of
from training.names import AUTO
from training.tower import TOWER_METHODS, tune_tower

SHOTS = (1, 2, 4, 8, 16)
SEEDS = (0, 1, 2)
KINDS = {  # a keyword, and what somebody else might say
    "flag": "country",
    "face": "mood",
    "animal": "creature",
    "person": "human being",
    "food": "meal",
    "button": "interface",
    "hand": "gesture",
    "tool": "equipment",
    "clothing": "outfit",
    "heart": "affection",
}
CIFAR = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
)  # fmt: skip
VIEWS = 4
RETAINED = 200
TEST = 25  # most drawings of a kind to test with
CACHE = Path(".cache/finetune-proof")


@dataclass(frozen=True, eq=False)
class Task:
    """pool: to draw support sets from; test: looked at once, at the end; both features."""

    name: str
    pool: Dataset
    test: Samples

    def support(self, shots: int, seed: int) -> Dataset:
        """`shots` images of each class, without a validation side."""
        dice = torch.Generator().manual_seed(1000 * seed + shots)
        rows: list[int] = []
        for number in range(len(self.pool.classes)):
            own = torch.nonzero(self.pool.train.labels == number)[:, 0]
            rows += own[torch.randperm(len(own), generator=dice)[:shots]].tolist()
        empty = self.pool.train.pick([])
        return replace(self.pool, train=self.pool.train.pick(rows), val=empty)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; 1 if a default ends below zero-shot, or doesn't rise with the shots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="has cifar10/, pictograms/")
    parser.add_argument("--page", type=Path, help="write the tables between this page's marks")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--shots", type=int, nargs="+", default=SHOTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    every = (*METHODS, AUTO, *TOWER_METHODS)
    parser.add_argument("--methods", nargs="+", choices=every, default=every)
    parser.add_argument(
        "--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes, one core each"
    )
    parser.add_argument("--kept", action="store_true", help="run nothing, show what is kept")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    encoder = load_encoder("everyday")
    folder = options.cache / encoder.fingerprint[:12]
    tasks = make_tasks(encoder, options)
    plan = [
        CellName(task, method, shots, seed)
        for seed in options.seeds
        for method in options.methods
        for shots in options.shots
        for task in tasks
        if method not in TOWER_METHODS or tasks[task].pool.others is None
    ]
    missing = [name for name in plan if not (folder / name.file).exists()]
    if not options.kept:
        fill(missing, folder, options)
    cells = [Cell.read(folder / name.file) for name in plan if (folder / name.file).exists()]
    print(tables(cells))
    if options.page is not None:
        write_page(options.page, cells, date.today())
    return 0 if passed(cells, report=print) else 1


class CellName(NamedTuple):
    """Which cell of the tables."""

    task: str
    method: str
    shots: int
    seed: int

    @property
    def file(self) -> str:
        """Where it is kept."""
        return f"{self.task}-{self.method}-{self.shots}-{self.seed}.json"


def fill(missing: Sequence[CellName], folder: Path, options: argparse.Namespace) -> None:
    """Measure cells, `options.jobs` at a time; each is kept as soon as it is there."""
    with ProcessPoolExecutor(
        options.jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(options,),
    ) as pool:
        # The dear ones first, so that no core is idle at the end.
        order = sorted(missing, key=lambda name: (name.seed, -name.shots))
        began = {pool.submit(_timed, name): name for name in order}
        try:
            for number, done in enumerate(as_completed(began), 1):
                name, (cell, took) = began[done], done.result()
                cell.write(folder / name.file)
                print(
                    f"{number}/{len(missing)} {name.task} {name.method} {name.shots} shots, seed "
                    f"{name.seed}: {cell.accuracy:.1%} (zero-shot {cell.zero_accuracy:.1%}), "
                    f"{took:.1f} s; {cell.why}",
                    file=sys.stderr,
                    flush=True,
                )
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


_tasks: dict[str, Task] = {}  # of a measuring process


def _begin(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    _tasks.update(make_tasks(load_encoder("everyday"), options))


def _timed(name: CellName) -> tuple[Cell, float]:
    began = time.monotonic()
    cell = measure(_tasks[name.task], name.method, name.shots, name.seed)
    return cell, time.monotonic() - began


def make_tasks(encoder: Encoder, options: argparse.Namespace) -> dict[str, Task]:
    """The tasks, by name; what is encoded is kept."""
    kinds, photographs = drawings(encoder, options), cifar(encoder, options)
    tasks = [photographs, in_other_words(kinds, encoder), kinds, in_an_index(photographs, encoder)]
    return {task.name: task for task in tasks}


def measure(task: Task, method: str, shots: int, seed: int) -> Cell:
    """One method on one support set."""
    data = task.support(shots, seed)
    x, labels = task.test.first_views(), task.test.labels
    words = data.zero_shot
    assert words is not None
    zero = words.among(data.others).logits(x)
    if method in TOWER_METHODS:
        tuned = tune_tower("everyday", data, method=method, seed=seed)
        logits = logits_of(tuned.after, _pixels_of(task, tuned.clip.preprocess))
        kept, why = tower_retention(tuned), tuned.settings.why
    else:
        recipe, why = head_recipe(data, method, None, seed=seed)
        strength = ""
        if method != AUTO:
            recipe, strength = choose_strength(data, recipe)
        run = fit(recipe, data)
        logits = ranked_logits(run, data, x)
        kept, why = head_retention(run, data), "; ".join(filter(None, [why, strength]))
    before, after = (score(answers, labels, data.classes) for answers in (zero, logits))
    return Cell(
        task=task.name,
        method=method,
        shots=shots,
        seed=seed,
        right=_bits(logits, labels),
        zero=_bits(zero, labels),
        error_zero=before.calibration_error,
        error_tuned=after.calibration_error,
        kept_zero=kept.zero_shot,
        kept_tuned=kept.tuned,
        why=why,
    )


def _bits(logits: torch.Tensor, labels: torch.Tensor) -> str:
    return "".join("01"[int(right)] for right in logits.argmax(dim=1) == labels)


_pixels: dict[str, torch.Tensor] = {}


def _pixels_of(task: Task, preprocess: object) -> torch.Tensor:
    """The test images as the tower wants them, read once."""
    from models.image.preprocess import PreprocessConfig, Preprocessor
    from training.tower import pixel_dataset

    assert isinstance(preprocess, PreprocessConfig)
    if task.name not in _pixels:
        some = replace(task.support(1, 0), val=task.test, retention=None)
        _pixels[task.name] = pixel_dataset(some, Preprocessor(preprocess)).val.inputs
    return _pixels[task.name]


def cifar(encoder: Encoder, options: argparse.Namespace) -> Task:
    """CIFAR-10: 200 photographs a class to draw from, 50 to test with."""
    root = options.cache / "images"
    for side in ("train", "val"):
        if not (root / "cifar10" / side).is_dir():
            with zipfile.ZipFile(options.data / "cifar10" / f"{side}.zip") as archive:
                archive.extractall(root / "cifar10" / side)
    folder = ImageFolder(root / "cifar10" / "train", val=root / "cifar10" / "val")
    data = _encoded(encoder, folder, options)
    retention = drawings(encoder, options).pool.retention
    return Task("cifar10", replace(data, retention=retention), data.val)


def drawings(encoder: Encoder, options: argparse.Namespace) -> Task:
    """Ten kinds of drawings in twemoji: each drawing that is of one kind only, by its keywords."""
    source, root = options.data / "pictograms", options.cache / "images" / "twemoji"
    rows = [json.loads(line) for line in (source / "names.jsonl").read_text("utf-8").splitlines()]
    with zipfile.ZipFile(source / "twemoji.zip") as archive:
        entries = {Path(name).stem: name for name in archive.namelist() if name.endswith(".png")}
        dice = np.random.default_rng(0)
        kinds: dict[str, list[str]] = {kind: [] for kind in KINDS}
        others: list[tuple[str, str]] = []
        for row in rows:
            if row["id"] in entries:
                hits = [kind for kind in KINDS if kind in row["keywords"]]
                if len(hits) == 1:
                    kinds[hits[0]].append(row["id"])
                elif not hits and row["name"] not in (*KINDS, *KINDS.values(), *CIFAR):
                    others.append((row["name"].replace("/", " "), row["id"]))
        chosen = [others[i] for i in dice.permutation(len(others))[:RETAINED]]
        files: list[tuple[Path, str]] = [(Path("others", n, "0.png"), i) for n, i in chosen]
        for kind, ids in kinds.items():
            mixed = [ids[i] for i in dice.permutation(len(ids))]
            held = min(TEST, len(mixed) - max(SHOTS))
            files += [(Path("test", kind, f"{i}.png"), i) for i in mixed[:held]]
            files += [(Path("train", kind, f"{i}.png"), i) for i in mixed[held:]]
        for path, number in files:
            target = root / path
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(entries[number]))
    # drawings of one style are near-duplicates by the folder's measure (flags, hands): each its own
    data = _plain(encoder, root / "train", options)
    test = _plain(encoder, root / "test", options)
    kept = _plain(encoder, root / "others", options, views=1)
    assert kept.zero_shot is not None
    retention = Retention(kept.train, kept.classes, kept.zero_shot)
    return Task("twemoji", replace(data, retention=retention), test.train)


def in_other_words(task: Task, encoder: Encoder) -> Task:
    """The same drawings under words of one's own."""
    classes = tuple(KINDS[name] for name in task.pool.classes)
    words = zero_shot(encoder, classes, templates=resolve_templates("everyday").texts)
    pool = replace(task.pool, classes=classes, zero_shot=words)
    return Task("twemoji-own-words", pool, task.test)


def in_an_index(task: Task, encoder: Encoder) -> Task:
    """The same among the default index's categories, of which there are no images."""
    listed = CATEGORIES.read_text(encoding="utf-8").splitlines()
    others = [label for label in listed if label and label not in task.pool.classes]
    words = zero_shot(encoder, others, templates=resolve_templates("everyday").texts)
    pool = replace(task.pool, others=words.text)
    return Task(f"{task.name}-among-{len(others)}", pool, task.test)


def _plain(
    encoder: Encoder, root: Path, options: argparse.Namespace, views: int = VIEWS
) -> Dataset:
    data = _encoded(encoder, ImageFolder(root, val=0.0), options, views)
    return replace(data, train=replace(data.train, groups=None))


def _encoded(
    encoder: Encoder, folder: ImageFolder, options: argparse.Namespace, views: int = VIEWS
) -> Dataset:
    def show(done: int, total: int) -> None:
        if done == total or done % 512 == 0:
            print(f"encoding {folder.root}: {done}/{total}", file=sys.stderr, flush=True)

    return encode(
        encoder,
        folder,
        views=views,
        templates=resolve_templates("everyday").texts,
        cache=options.cache / "features",
        on_progress=show,
    )


if __name__ == "__main__":
    sys.exit(main())
