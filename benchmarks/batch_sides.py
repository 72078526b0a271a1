"""The sides of `benchmarks.batch`: a loop over open_clip as one writes it, and ours."""

from __future__ import annotations

import contextlib
import itertools
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from indexer import CategoryIndex, Policy
from models import load_encoder
from models.machine import cpu_count
from models.sources.names import resolve
from service.batch import Classifier, Item, Journal, LocalEngine, Question, Results, run_job
from service.batch.inputs import list_items

LABELS = ["bird", "dog", "car", "food", "building", "flower", "person", "boat"]
TEMPLATE = "a photo of a {}"
LOOP_BATCH = 32


class Ours:
    """`clipdex classify` without its command line: the model is loaded before the clock runs."""

    def __init__(self, model: str, cache: str | None) -> None:
        self._encoder = load_encoder(model, cache_dir=cache)
        categories = CategoryIndex.build(LABELS, self._encoder, templates=[TEMPLATE])
        question = Question(top_k=5, policy=Policy(), max_pixels=100_000_000)
        self._classifier = Classifier(self._encoder, categories, question)

    def facts(self) -> dict[str, str]:
        return {"backend": self._encoder.backend, "precision": self._encoder.precision}

    def encoder(self, folder: str, seconds: float) -> float:
        """Images a second from pixels in memory, in the batches that a run makes."""
        items = itertools.islice(list_items([folder]), self._classifier.batch_size)
        batch = [self._classifier.prepare(item) for item in items]
        self._classifier.encode(batch)
        began, runs = time.perf_counter(), 0
        while (taken := time.perf_counter() - began) < seconds:
            self._classifier.encode(batch)
            runs += 1
        return runs * len(batch) / taken

    def decode(self, folder: str, count: int) -> float:
        """Images a second from files to pixels, on every processor, nothing else running."""
        items = list(itertools.islice(list_items([folder]), count))
        with ThreadPoolExecutor(cpu_count()) as pool:
            began = time.perf_counter()
            for image in pool.map(self._decoded, items):
                assert image
            return len(items) / (time.perf_counter() - began)

    def run(self, folder: str, out: str, count: int | None = None) -> float:
        """Images a second of a whole run, from listing to the results in place."""
        with tempfile.TemporaryDirectory(dir=out) as work:
            results = Results(Path(work) / "results.parquet")
            began = time.perf_counter()
            with Journal.open(
                results.out, {}, lambda: itertools.islice(list_items([folder]), count)
            ) as journal:
                engine = LocalEngine(self._classifier, journal.cache())
                summary = run_job(journal, engine, results, dim=self._classifier.dim)
            taken = time.perf_counter() - began
        assert summary.failed == 0
        return summary.images / taken

    def _decoded(self, item: Item) -> bool:
        return self._classifier.prepare(item).pixels is not None


class Loop:
    """open_clip by its own functions, images decoded one after the other."""

    def __init__(self, model: str) -> None:
        import torch

        from models.openclip import import_open_clip

        self._torch, open_clip = torch, import_open_clip()
        folder = resolve(model).weights.absolute().parent
        name = f"local-dir:{folder}"
        self._model, _, self._preprocess = open_clip.create_model_and_transforms(name)
        self._model.eval()
        with contextlib.chdir(folder):  # open_clip looks for a model's own merges from here
            tokenizer = open_clip.get_tokenizer(name)
        tokens = tokenizer([TEMPLATE.format(label) for label in LABELS])
        with torch.inference_mode():
            self._texts = self._model.encode_text(tokens, normalize=True)

    def facts(self) -> dict[str, str]:
        return {"backend": "open_clip", "precision": "fp32"}

    def run(self, folder: str, count: int) -> float:
        """Images a second over the first `count` files of the folder, answers written as JSON."""
        paths = sorted(Path(folder).iterdir())[:count]
        began = time.perf_counter()
        with tempfile.TemporaryFile("w") as file:
            for start in range(0, len(paths), LOOP_BATCH):
                part = paths[start : start + LOOP_BATCH]
                for path, scores in zip(part, self._scores(part), strict=True):
                    best = int(np.argmax(scores))
                    row = {"file": str(path), "label": LABELS[best], "score": float(scores[best])}
                    file.write(json.dumps(row) + "\n")
        return len(paths) / (time.perf_counter() - began)

    def _scores(self, paths: list[Path]) -> Any:
        images = []
        for path in paths:
            with Image.open(path) as image:
                images.append(self._preprocess(image))
        with self._torch.inference_mode():
            vectors = self._model.encode_image(self._torch.stack(images), normalize=True)
            probabilities = self._model.logit_scale.exp() * vectors @ self._texts.T
            return probabilities.softmax(dim=-1).numpy()
