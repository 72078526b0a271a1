"""`auto` beside what ten lines of scikit-learn reach on the same features: `make finetune-proof`.

    python -m benchmarks.finetune_baselines --data ../shared/data [--model NAME] [--page PAGE]

Baselines: zero-shot; nearest class mean (cosine); LogisticRegression with C by GridSearchCV on
stratified folds. Each gets the plain images, all of the support set, and nothing else.

Tasks, with words of the class names alone and in one ranking with other categories, 400 in all:

    cifar10          10 classes; support from train, 50 a class to test
    photos-class     15 of the 200 classes of photos-64, drawn anew for each seed
    photos-hypernym  12 disjoint hypernyms of these classes, each of at least three of them
    drawings         ten keywords of twemoji
    drawings-own     the same drawings under words of somebody's own

Only images that the embedded model has not been trained on: of photos-64 the 20 a class whose
names have the smallest SHA-256 (as in its training), and twemoji, which is its validation style.

In an index the baselines are asked among their classes alone, which flatters them: they know no
other category, `auto` has to tell its classes from them, too.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import sys
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from benchmarks.finetune_proof import CIFAR, KINDS
from indexer import resolve_templates
from models import Encoder, load_encoder
from models.images import decode_image
from service.serving.core import CATEGORIES, DEFAULT_TEMPLATES
from training import Dataset, Samples, ZeroShot, zero_shot
from training.judging.leaderboard import leaderboard
from training.judging.metrics import score

SHOTS = (1, 2, 4, 8, 16)
SEEDS = 5
INDEX = 400
TESTED = 25  # most test images a class
FOLDS = 5
CACHE = Path(".cache/finetune-baselines")
BEGIN, END = "<!-- finetune-baselines -->", "<!-- /finetune-baselines -->"
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Task:
    """x: unit vectors [N, D]; labels [N]; words: class names; test: rows that are never support,
    None to take what is left of each class; others: text vectors of other categories [M, D].
    """

    name: str
    x: Floats
    labels: NDArray[np.int64]
    words: ZeroShot
    test: NDArray[np.int64] | None = None
    others: torch.Tensor | None = None

    def draw(self, shots: int, seed: int) -> tuple[Dataset, Samples]:
        """A support set and the test images."""
        dice = np.random.default_rng(1000 * seed + shots)
        support: list[int] = []
        test: list[int] = [] if self.test is None else self.test.tolist()
        for number in range(len(self.words.text)):
            rows = np.flatnonzero(self.labels == number)
            if self.test is not None:
                rows = np.setdiff1d(rows, self.test)
            rows = dice.permutation(rows)
            support += rows[:shots].tolist()
            if self.test is None:
                test += rows[shots : shots + TESTED].tolist()
        sides = [
            Samples(torch.from_numpy(self.x[rows])[:, None], torch.from_numpy(self.labels[rows]))
            for rows in (support, test)
        ]
        names = tuple(map(str, range(len(self.words.text))))
        empty = sides[1].pick([])
        return Dataset(sides[0], empty, names, self.words, others=self.others), sides[1]


@dataclass(frozen=True)
class Row:
    """Shares in [0, 1], means over the seeds; reported: out of fold, None at one image a class."""

    task: str
    shots: int
    zero: float
    means: float
    regression: float
    auto: float
    error: float
    reported: float | None
    chosen: str

    @property
    def lead(self) -> float:
        """Of auto over the best baseline."""
        return self.auto - max(self.zero, self.means, self.regression)

    @property
    def passed(self) -> bool:
        return self.lead >= -0.01 and (self.shots < 4 or self.error <= 0.10)


def measure(task: Task, shots: int, seeds: int) -> Row:
    """All of them on the same support sets."""
    found: dict[str, list[float]] = defaultdict(list)
    chosen: list[str] = []
    for seed in range(seeds):
        data, test = task.draw(shots, seed)
        x, y = test.first_views(), test.labels
        board = leaderboard(data, seed=seed)
        head = board.winner.method.build(data).eval()
        with torch.no_grad():
            answers = head(x) if data.others is None else head.ranked(x, data.others)  # type: ignore[operator]
        tuned = score(answers, y, data.classes)
        zero = task.words.among(data.others).logits(x).argmax(dim=1)
        found["auto"].append(tuned.top1)
        found["error"].append(tuned.calibration_error)
        found["zero"].append(float((zero == y).double().mean()))
        own, labels = data.train.first_views().numpy(), data.train.labels.numpy()
        found["means"].append(class_means(own, labels, x.numpy(), y.numpy()))
        found["regression"].append(regression(own, labels, shots).score(x.numpy(), y.numpy()))
        if board.winner.accuracy is not None:
            found["reported"].append(board.winner.accuracy)
        chosen.append(board.winner.name)
    mean = {name: float(np.mean(values)) for name, values in found.items()}
    most = max(sorted(set(chosen)), key=chosen.count)
    return Row(
        task.name,
        shots,
        mean["zero"],
        mean["means"],
        mean["regression"],
        mean["auto"],
        mean["error"],
        mean.get("reported"),
        most,
    )


def class_means(
    x: Floats, labels: NDArray[np.int64], test: Floats, wanted: NDArray[np.int64]
) -> float:
    """Accuracy of the nearest class mean by cosine."""
    means = np.stack([x[labels == c].mean(axis=0) for c in range(labels.max() + 1)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return float(((test @ means.T).argmax(axis=1) == wanted).mean())


def regression(x: Floats, labels: NDArray[np.int64], shots: int) -> Any:
    """scikit-learn's, with C by folds; C = 1 where there are none."""
    if shots < 2:
        return LogisticRegression(max_iter=1000).fit(x, labels)
    folds = StratifiedKFold(min(FOLDS, shots), shuffle=True, random_state=0)
    grid = {"C": [0.1, 1.0, 10.0, 100.0]}
    return GridSearchCV(LogisticRegression(max_iter=1000), grid, cv=folds).fit(x, labels)


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| task | images a class | zero-shot | class means | regression | auto | lead | "
        "calibration error | reported | mostly |",
        "| --- |" + " ---: |" * 8 + " --- |",
    ]
    for row in rows:
        reported = "-" if row.reported is None else f"{row.reported:.1%}"
        lines.append(
            f"| {row.task} | {row.shots} | {row.zero:.1%} | {row.means:.1%} | {row.regression:.1%} "
            f"| **{row.auto:.1%}** | {100 * row.lead:+.1f}{'' if row.passed else ' (!)'} | "
            f"{row.error:.1%} | {reported} | {row.chosen} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 if auto is more than a point below a baseline, or badly calibrated."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="everyday")
    parser.add_argument("--page", type=Path, help="write the table between this page's marks")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--shots", type=int, nargs="+", default=SHOTS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--tasks", nargs="+", help="only those whose name starts so")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    encoder = load_encoder(options.model)
    rows: list[Row] = []
    for task in make_tasks(encoder, options.data, options.cache / encoder.fingerprint[:12]):
        if options.tasks and not task.name.startswith(tuple(options.tasks)):
            continue
        for shots in options.shots:
            rows.append(measure(task, shots, options.seeds))
            print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    print(table(rows))
    if options.page is not None:
        text = options.page.read_text(encoding="utf-8")
        head, rest = text.split(BEGIN)
        body = f"{BEGIN}\n{table(rows)}\n{END}"
        options.page.write_text(head + body + rest.split(END)[1], encoding="utf-8")
    return 0 if all(row.passed for row in rows) else 1


def make_tasks(encoder: Encoder, data: Path, cache: Path) -> Iterator[Task]:
    """Each alone, then among other categories."""
    texts = resolve_templates(DEFAULT_TEMPLATES).texts
    imagenet = [
        json.loads(line)
        for line in (data / "words" / "imagenet.jsonl").read_text("utf-8").splitlines()
    ]
    listed = CATEGORIES.read_text(encoding="utf-8").splitlines()
    more = [label for label in [*listed, *(row["name"] for row in imagenet)] if label]

    def both(
        name: str,
        x: Floats,
        labels: Sequence[int],
        classes: Sequence[str],
        test: NDArray[np.int64] | None = None,
    ) -> Iterator[Task]:
        words = zero_shot(encoder, classes, templates=texts)
        task = Task(name, x, np.asarray(labels, np.int64), words, test)
        yield task
        own = {label.casefold() for label in classes}
        rest = [label for label in dict.fromkeys(more) if label.casefold() not in own]
        others = zero_shot(encoder, rest[: INDEX - len(classes)], templates=texts).text
        yield replace(task, name=f"{name}, in {INDEX}", others=others)

    yield from both("cifar10", *_cifar(encoder, data, cache))
    photos, wnids = _photos(encoder, data, cache)
    names = {row["wnid"]: row["name"] for row in imagenet}
    every = sorted(set(wnids))
    drawn = np.random.default_rng(0).permutation(every)[:15].tolist()
    rows = [i for i, wnid in enumerate(wnids) if wnid in drawn]
    yield from both(
        "photos-class",
        photos[rows],
        [drawn.index(wnids[i]) for i in rows],
        [names[w] for w in drawn],
    )
    groups = _hypernyms(imagenet, set(every), data)
    group_of = {wnid: number for number, (_, members) in enumerate(groups) for wnid in members}
    rows = [i for i, wnid in enumerate(wnids) if wnid in group_of]
    yield from both(
        "photos-hypernym",
        photos[rows],
        [group_of[wnids[i]] for i in rows],
        [word for word, _ in groups],
    )
    drawings, kinds = _drawings(encoder, data, cache)
    yield from both("drawings", drawings, kinds, list(KINDS))
    yield from both("drawings-own", drawings, kinds, list(KINDS.values()))


def _encoded(
    encoder: Encoder, archive: Path, cache: Path, wanted: Callable[[str], bool]
) -> tuple[Floats, list[str]]:
    """Vectors of an archive's images in the order of their names; kept on disk."""
    file = cache / f"{archive.parent.name}-{archive.stem}.npz"
    with zipfile.ZipFile(archive) as images:
        names = sorted(n for n in images.namelist() if n.endswith((".jpg", ".png")) and wanted(n))
        if file.exists():
            with np.load(file, allow_pickle=False) as kept:
                if kept["names"].tolist() == names:
                    return kept["x"], names
        parts = []
        for start in range(0, len(names), 64):
            batch = [decode_image(images.read(n)) for n in names[start : start + 64]]
            parts.append(np.asarray(encoder.encode_images(batch), np.float32))
            print(f"{archive.name}: {start + len(batch)}/{len(names)}", file=sys.stderr)
    x: Floats = np.concatenate(parts)
    cache.mkdir(parents=True, exist_ok=True)
    np.savez(file, x=x, names=np.array(names))
    return x, names


def _cifar(
    encoder: Encoder, data: Path, cache: Path
) -> tuple[Floats, list[int], Sequence[str], NDArray[np.int64]]:
    taken: dict[str, int] = defaultdict(int)

    def first(name: str) -> bool:  # enough to draw 16 of, for five seeds
        taken[Path(name).parent.name] += 1
        return taken[Path(name).parent.name] <= 60

    pool, pool_names = _encoded(encoder, data / "cifar10" / "train.zip", cache, first)
    test, test_names = _encoded(encoder, data / "cifar10" / "val.zip", cache, lambda _: True)
    labels = [CIFAR.index(Path(name).parent.name) for name in [*pool_names, *test_names]]
    rows = np.arange(len(pool), len(pool) + len(test))
    return np.concatenate([pool, test]), labels, CIFAR, rows


def _photos(encoder: Encoder, data: Path, cache: Path) -> tuple[Floats, list[str]]:
    """The 20 a class of photos-64 that are held out of all training, and their WordNet ids."""
    archive = data / "photos-64.zip"
    members: dict[str, list[str]] = defaultdict(list)
    with zipfile.ZipFile(archive) as images:
        for name in sorted(n for n in images.namelist() if n.endswith(".jpg")):
            members[Path(name).parent.name].append(name)

    def digest(name: str) -> str:
        return hashlib.sha256("/".join(Path(name).parts[-2:]).encode()).hexdigest()

    held = {name for own in members.values() for name in sorted(own, key=digest)[:20]}
    x, names = _encoded(encoder, archive, cache, held.__contains__)
    return x, [Path(name).parent.name for name in names]


def _hypernyms(
    imagenet: Sequence[dict[str, Any]], present: set[str], data: Path
) -> list[tuple[str, set[str]]]:
    """Twelve hypernyms with three to nine classes each, no class in two; as (word, wnids)."""
    words = {}
    with gzip.open(data / "words" / "nouns.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            noun = json.loads(line)
            words[noun["wnid"]] = noun["words"][0].replace("_", " ")
    members: dict[str, set[str]] = defaultdict(set)
    for row in imagenet:
        if row["wnid"] in present:
            for hypernym in row["hypernyms"]:
                members[hypernym].add(row["wnid"])
    found: list[tuple[str, set[str]]] = []
    used: set[str] = set()
    for hypernym, own in sorted(members.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        if 3 <= len(own) <= 9 and not own & used:
            found.append((words[hypernym], own))
            used |= own
    return found[:12]


def _drawings(encoder: Encoder, data: Path, cache: Path) -> tuple[Floats, list[int]]:
    """Twemoji's drawings of one kind only, by their keywords."""
    source = data / "pictograms"
    kinds: dict[str, int] = {}
    for line in (source / "names.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        hits = [number for number, kind in enumerate(KINDS) if kind in row["keywords"]]
        if len(hits) == 1:
            kinds[row["id"]] = hits[0]
    x, names = _encoded(
        encoder, source / "twemoji.zip", cache, lambda name: Path(name).stem in kinds
    )
    return x, [kinds[Path(name).stem] for name in names]


if __name__ == "__main__":
    sys.exit(main())
