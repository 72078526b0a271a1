"""The servers under test: what they serve, how they are started, and what they are asked."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
LABELS = ROOT / "service" / "default_categories.txt"
DRAWINGS = ROOT / "service" / "samples"
START_TIMEOUT_S = 900.0
USUAL = "usual"


@dataclass(frozen=True)
class Side:
    """One server under test.

    key: its name in the results
    model: model id; command and environment: how it is started, {port} is put in
    path: what is asked; ready: what tells that it can be asked
    images: the folder of what is sent
    ours: whether it is this service
    """

    key: str
    model: str
    command: tuple[str, ...]
    images: Path
    environment: dict[str, str] = field(default_factory=dict)
    path: str = "/v1/classify"
    ready: str = "/readyz"
    ours: bool = True
    precision: str = "auto"


@dataclass(frozen=True)
class Process:
    """A running server and how long it took to be ready, in seconds."""

    pid: int
    port: int
    ready_s: float


def make_model(folder: Path) -> str:
    """A ViT-B/32 with random weights in open_clip's local format; returns its model id."""
    import torch
    from safetensors.torch import save_file

    from models.openclip import declare_missing_operators

    declare_missing_operators()
    import open_clip

    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32")
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    folder.mkdir()
    save_file(state, folder / "open_clip_model.safetensors")
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    config = {
        "model_cfg": open_clip.get_model_config("ViT-B-32"),
        "preprocess_cfg": {**preprocess, "interpolation": "bicubic", "resize_mode": "shortest"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    return f"local-dir:{folder}"


def make_transformers_model(folder: Path) -> Path:
    """The same architecture with random weights and a tokenizer, as transformers reads it."""
    from models.openclip import declare_missing_operators

    declare_missing_operators()
    import open_clip
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    CLIPModel(CLIPConfig()).save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    tokenizer = open_clip.tokenizer.SimpleTokenizer()
    first, last = list(tokenizer.encoder)[-2:]
    merges = "\n".join(" ".join(pair) for pair in tokenizer.bpe_ranks)
    special = {"bos_token": first, "eos_token": last, "unk_token": last, "pad_token": last}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
    for name, content in (
        ("vocab.json", json.dumps(tokenizer.encoder)),
        ("merges.txt", f"#version: 0.2\n{merges}\n"),
        ("special_tokens_map.json", json.dumps(special)),
        ("tokenizer_config.json", json.dumps(config)),
    ):
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def make_images(folder: Path, data: Path | None, count: int = 64) -> str:
    """Real photographs where there are any, else pictures that cost a decoder as much.

    Returns what they are, for the record.
    """
    folder.mkdir()
    photos = sorted((data / "photos").glob("*.jpg")) if data is not None else []
    for photo in photos[:count]:
        shutil.copy(photo, folder / photo.name)
    if not photos:
        rng = np.random.default_rng(0)
        for number in range(count):
            photo_like(rng).save(folder / f"{number:03}.jpg", quality=88)
    sizes = [file.stat().st_size for file in folder.iterdir()]
    kind = "photographs" if photos else "made pictures"
    return f"{len(sizes)} {kind}, JPEG, {statistics.median(sizes) / 1000:.0f} kB (median)"


def photo_like(rng: np.random.Generator) -> Image.Image:
    """500 x 375 with detail at every scale, as photographs have: about 80 kB as a JPEG."""
    height, width = 375, 500
    pixels = np.zeros((height, width, 3))
    for size in (4, 12, 40, 120, 375):
        coarse = rng.uniform(-1, 1, (size * height // 375 + 2, size * width // 375 + 2, 3))
        layer = np.stack(
            [
                np.asarray(
                    Image.fromarray(coarse[:, :, channel].astype(np.float32)).resize(
                        (width, height), Image.Resampling.BICUBIC
                    )
                )
                for channel in range(3)
            ],
            axis=2,
        )
        pixels += layer / size**0.55
    low, high = np.percentile(pixels, (1, 99))
    scaled = np.clip((pixels - low) / (high - low), 0, 1)
    return Image.fromarray((255 * scaled).astype(np.uint8), "RGB")


def our_side(key: str, model: str, precision: str, work: Path, images: Path) -> Side:
    """This service, with a data folder and a cache of its own."""
    environment = {
        "CLIPDEX_DATA": str(work / f"data-{key.replace(' ', '-')}"),
        "CLIPDEX_CACHE": str(work / "cache"),
    }
    command = (
        *(sys.executable, "-c", "from service.cli import main; main()", "serve"),
        *("--model", model, "--precision", precision, "--port", "{port}"),
    )
    return Side(key, model, command, images, environment, precision=precision)


def usual_side(model: str, images: Path) -> Side:
    """FastAPI and open_clip, eager."""
    command = (
        *(sys.executable, "-m", "benchmarks.usual_server", "--model", model),
        *("--labels", str(LABELS), "--port", "{port}"),
    )
    return Side(USUAL, model, command, images, ours=False)


# The same mending as in models/openclip.py, for an environment that hasn't got it.
_INFINITY = """
import torch
fragment = torch.library.Library("torchvision", "FRAGMENT")
if not hasattr(torch.ops.torchvision, "nms"):
    fragment.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    fragment.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from infinity_emb.cli import cli
cli()
"""


def infinity_side(python: Path, folder: Path, images: Path) -> Side:
    """infinity-emb from an environment of its own; it embeds, and compares with nothing."""
    command = (
        *(str(python), "-c", _INFINITY, "v2", "--model-id", str(folder)),
        *("--served-model-name", "clip", "--engine", "torch", "--device", "cpu"),
        *("--port", "{port}", "--no-model-warmup", "--log-level", "warning"),
    )
    environment = {"HF_HUB_OFFLINE": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    return Side(
        "infinity-emb",
        folder.name,
        command,
        images,
        environment,
        "/embeddings",
        "/health",
        ours=False,
    )


@contextlib.contextmanager
def running(side: Side, log: Path) -> Iterator[Process]:
    """Start a side, wait until it is ready, and stop it in the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [part.replace("{port}", str(port)) for part in side.command]
    began = time.perf_counter()
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env={**os.environ, **side.environment},
        )
    try:
        wait_ready(process, f"http://127.0.0.1:{port}{side.ready}", log)
        yield Process(process.pid, port, time.perf_counter() - began)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Poll `url`; exit with the log's end if the server ends or never answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            opener.open(url, timeout=5).close()
            return
        time.sleep(0.02)
    tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    sys.exit(f"{process.args!r} never became ready:\n{tail}")
