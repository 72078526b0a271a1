"""The image encoder, side by side: open_clip as it is used, and this project's backends.

    python -m benchmarks.encoder [--data ../shared/data] [--quick] [--out build/bench]

A randomly initialised ViT-B/32 is measured, because speed doesn't depend on the weights. Each side
is a process of its own; they take turns at every batch size, in rounds of alternating order.
"encoder" begins with float pixels, "from files" with the bytes of JPEG files. Prints a table, and
writes encoder.json and encoder.png.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.contenders import Contender, in_turn, machine, make_model, running
from benchmarks.http_sides import make_images
from models import decode_image, load_encoder
from models.golden import min_cosine
from models.machine import cpu_has_bf16, has_nvidia_driver

BATCHES = (1, 4, 16, 64)
OPEN_CLIP = "open_clip eager fp32"
LARGE_PIXELS = 12_000_000


class Eager:
    """open_clip by its own functions, the way most services call it."""

    def __init__(self, model_id: str, files: list[str]) -> None:
        import torch

        from models.openclip import import_open_clip

        self._torch = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        module, _, self._transform = import_open_clip().create_model_and_transforms(model_id)
        self._module = module.eval().to(self._device)
        self._data = [Path(file).read_bytes() for file in files]
        self._pixels = _random_pixels(224)

    def device(self) -> str:
        return self._device

    def encoder(self, batch: int, seconds: float) -> list[float]:
        """Seconds of each run on `batch` images."""
        pixels = self._torch.from_numpy(self._pixels[:batch])
        return _timed(lambda: self._encode(pixels), seconds)

    def from_files(self, batch: int, seconds: float) -> list[float]:
        """The same from the files' bytes on."""
        data = _repeated(self._data, batch)

        def run() -> None:
            images = [Image.open(io.BytesIO(item)) for item in data]
            self._encode(self._torch.stack([self._transform(image) for image in images]))

        return _timed(run, seconds)

    def flops(self) -> float:
        """Floating-point operations of one image: twice its multiplications."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self._encode(self._torch.zeros(1, 3, 224, 224))
        return float(counter.get_total_flops())

    def ceiling(self, precision: str, seconds: float) -> float:
        """Operations a second of a large matrix product, the best of several."""
        torch = self._torch
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        size = 8192 if self._device == "cuda" else 2048
        a, b = (torch.randn(size, size, device=self._device).to(dtype) for _ in range(2))

        def run() -> None:
            a @ b
            self._wait()

        with torch.inference_mode():
            return 2 * size**3 / min(_timed(run, seconds))

    def _encode(self, pixels: Any) -> Any:
        with self._torch.inference_mode():
            vectors = self._module.encode_image(pixels.to(self._device), normalize=True)
        return vectors.cpu().numpy()

    def _wait(self) -> None:
        if self._device == "cuda":
            self._torch.cuda.synchronize()


class Ours:
    """An encoder of this project."""

    def __init__(
        self, model_id: str, files: list[str], backend: str, precision: str, cache: str
    ) -> None:
        began = time.perf_counter()
        self._encoder = load_encoder(
            model_id, backend=backend, precision=precision, cache_dir=Path(cache)
        )
        self._load_seconds = time.perf_counter() - began
        self._data = [Path(file).read_bytes() for file in files]
        self._pixels = _random_pixels(self._encoder.image_size[0])

    def facts(self) -> dict[str, Any]:
        encoder = self._encoder
        return {
            "backend": encoder.backend,
            "precision": encoder.precision,
            "device": encoder.device,
            "load_s": self._load_seconds,
        }

    def encoder(self, batch: int, seconds: float) -> list[float]:
        """Seconds of each run on `batch` images."""
        return _timed(lambda: self._encoder.encode_pixels(self._pixels[:batch]), seconds)

    def from_files(self, batch: int, seconds: float) -> list[float]:
        """The same from the files' bytes on."""
        data, size = _repeated(self._data, batch), self._encoder.image_size

        def run() -> None:
            self._encoder.encode_images([decode_image(item, target=size) for item in data])

        return _timed(run, seconds)

    def vectors(self) -> np.ndarray:
        """Of the files' images, for the comparison of precisions."""
        return self._encoder.encode_images([decode_image(item) for item in self._data])

    def large_jpegs(self, count: int) -> dict[str, float]:
        """Reduced-scale decoding against decoding whole, of images enlarged to 12 megapixels."""
        cosines, whole_s, reduced_s = [], [], []
        for item in self._data[:count]:
            data = _enlarged(decode_image(item))
            began = time.perf_counter()
            whole = decode_image(data)
            middle = time.perf_counter()
            reduced = decode_image(data, target=self._encoder.image_size)
            whole_s.append(middle - began)
            reduced_s.append(time.perf_counter() - middle)
            one, two = self._encoder.encode_images([whole, reduced])
            cosines.append(float(one @ two))
        return {
            "images": len(cosines),
            "least_cosine": min(cosines),
            "mean_cosine": statistics.fmean(cosines),
            "whole_ms": statistics.median(whole_s) * 1e3,
            "reduced_ms": statistics.median(reduced_s) * 1e3,
        }


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


def judge(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures that were promised, with what was measured beside them."""
    ms = {(row["side"], row["kind"], row["batch"]): row["ms_per_image"] for row in results["rows"]}
    best = results["auto"]

    def speedup(kind: str, batch: int) -> float:
        return ms[OPEN_CLIP, kind, batch] / ms[best, kind, batch]

    promised = [
        ("one image, against eager fp32", 2.5, speedup("encoder", 1)),
        ("batches of 16, encoder alone", 2.0, speedup("encoder", 16)),
        ("batches of 16, with decoding and preprocessing", 1.8, speedup("from_files", 16)),
    ]
    if results["device"] == "cuda":
        share = results["ceiling"][best]["share"]
        promised.append(("share of the bf16 matrix-product rate", 0.5, share))
    if "large_jpegs" in results:
        cosine = results["large_jpegs"]["least_cosine"]
        promised.append(("least cosine of reduced-scale decoding, 12 MP", 0.999, cosine))
    return [
        {"figure": figure, "wanted": wanted, "measured": measured, "met": measured >= wanted}
        for figure, wanted, measured in promised
    ]


def show(results: dict[str, Any]) -> None:
    """Tables on standard output."""
    console = Console()
    base = {
        (row["kind"], row["batch"]): row["ms_per_image"]
        for row in results["rows"]
        if row["side"] == OPEN_CLIP
    }
    for kind, title in (("encoder", "Encoder alone"), ("from_files", "From JPEG files")):
        rows = [row for row in results["rows"] if row["kind"] == kind]
        batches = sorted({row["batch"] for row in rows})
        table = Table(title=f"{title}: ms an image (times as fast as open_clip)")
        table.add_column("side")
        for batch in batches:
            table.add_column(f"batch {batch}", justify="right")
        for side in dict.fromkeys(row["side"] for row in rows):
            ms = {row["batch"]: row["ms_per_image"] for row in rows if row["side"] == side}
            cells = (f"{ms[b]:.1f} ({base[kind, b] / ms[b]:.2f}x)" for b in batches)
            table.add_row(side, *cells)
        console.print(table)
    table = Table(title="Sides")
    for name in ("side", "load s", "peak MB", "least cosine to fp32", "share of matrix product"):
        table.add_column(name, justify="left" if name == "side" else "right")
    for side, facts in results["sides"].items():
        ceiling = results["ceiling"].get(side)
        cosine = facts.get("least_cosine")
        table.add_row(
            side,
            f"{facts['load_s']:.1f}" if "load_s" in facts else "",
            f"{facts['peak_memory_mb']:.0f}",
            "" if cosine is None else f"{cosine:.5f}",
            "" if ceiling is None else f"{ceiling['share']:.0%}",
        )
    console.print(table)
    if "large_jpegs" in results:
        console.print("JPEGs of 12 megapixels, decoded at reduced scale:", results["large_jpegs"])
    table = Table(title=f"What was promised (ours: {results['auto']})")
    for name in ("figure", "wanted", "measured", "met"):
        table.add_column(name, justify="left" if name == "figure" else "right")
    for row in results["promises"]:
        cells = (f">= {row['wanted']:g}", f"{row['measured']:.4g}", "yes" if row["met"] else "no")
        table.add_row(row["figure"], *cells)
    console.print(table)


def plot(results: dict[str, Any], path: Path) -> None:
    """Milliseconds an image against the batch size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for axis, kind in zip(axes, ("encoder", "from_files"), strict=True):
        for side in results["sides"]:
            rows = [r for r in results["rows"] if (r["side"], r["kind"]) == (side, kind)]
            axis.plot(
                [r["batch"] for r in rows], [r["ms_per_image"] for r in rows], "o-", label=side
            )
        axis.set(title=kind.replace("_", " "), xlabel="batch", xscale="log", yscale="log")
        axis.grid(True, which="both", alpha=0.3)
    axes[0].set_ylabel("ms an image")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


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


def _timed(run: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each of at least three runs, repeated for about `seconds` after a warm-up."""
    run()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return times


def _random_pixels(side: int) -> np.ndarray:
    pixels = np.random.default_rng(0).standard_normal((max(BATCHES), 3, side, side))
    return pixels.astype(np.float32)


def _repeated(items: list[bytes], count: int) -> list[bytes]:
    return [items[number % len(items)] for number in range(count)]


def _enlarged(image: Image.Image) -> bytes:
    scale = math.sqrt(LARGE_PIXELS / (image.width * image.height))
    size = (round(image.width * scale), round(image.height * scale))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


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
