"""Image towers made ready: converted where that is needed, held against the reference, measured.

Imports torch only where the cache lacks something or where torch is to run the tower.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from models.encoder import ImageTower, Vectors
from models.errors import BackendError, UserError
from models.extras import how_to_install
from models.image.parity import (
    MIN_COSINE,
    Reference,
    min_cosine,
    read_reference,
    synthetic_images,
    write_reference,
)
from models.image.preprocess import Preprocessor
from models.machine import cpu_has_bf16, has_nvidia_driver, machine_name
from models.sources.cache import Cache
from models.sources.names import ModelSource

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)


# Raised when what is kept in the cache changes its meaning.
_LAYOUT = 1


# Least cosine of int8 to fp32 on 32 photographs (ViT-B/32, random weights): 0.9936 from 64 of these
# images, 0.9991 from 256. From 64 other photographs: 0.9961, and 0.977 on images like these.
_CALIBRATION_IMAGES = 256


class BackendShop:
    """Everything needed to run one model's image tower in one way or another."""

    def __init__(self, source: ModelSource, identity: str, cache: Cache) -> None:
        """identity: what `sources.identify` says of the source; names its place in the cache."""
        self._source, self._cache = source, cache
        self._place = f"models/{identity[:32]}"
        self._module: nn.Module | None = None
        self.preprocessor = Preprocessor(source.preprocess)

    @cached_property
    def reference(self) -> Reference:
        """The model's facts and golden answers, computed at the first load."""

        def build(folder: Path) -> None:
            from models.towers import compute_reference

            write_reference(
                compute_reference(self._load(), self._source, self.preprocessor), folder
            )

        return read_reference(
            self._folder("reference", _versions("torch", "open-clip-torch"), build)
        )

    def open_best(self, candidates: list[Candidate]) -> ImageTower:
        """The quickest of the candidates that computes what the reference does.

        Which is quickest is measured once on a machine and then known.

        Raises: BackendError where none passes.
        """
        ordered = candidates
        if (
            len({(c.backend, c.precision) for c in candidates}) > 1
            and candidates[0].device == "cpu"
        ):
            ordered = self._by_speed(candidates)
        for candidate in ordered:
            tower = self._open_checked(candidate)
            if tower is not None:
                self._module = None
                return tower
        raise BackendError(
            f"{self._source.model_id}: none of {', '.join(map(str, candidates))} could run it"
            " within the parity guard; try precision fp32 on backend torch"
        )

    def _open_checked(self, candidate: Candidate) -> ImageTower | None:
        """The candidate's tower; None, with a warning, if it fails or computes something else."""
        try:
            tower = self._open(candidate)
            cosine = min_cosine(tower(self.reference.pixels), self.reference.image_vectors)
        except (RuntimeError, NotImplementedError) as exc:
            first_line = (str(exc).splitlines() or [type(exc).__name__])[0]
            logger.warning("%s refused: %s cannot run it (%s)", self._name, candidate, first_line)
            return None
        least = MIN_COSINE[candidate.precision]
        if cosine < least:
            logger.warning(
                "%s refused: %s has cosine %.5f to the reference, less than %s",
                self._name,
                candidate,
                cosine,
                least,
            )
            return None
        return tower

    def _open(self, candidate: Candidate) -> ImageTower:
        if candidate.backend == "torch":
            from models.image.torch_runtime import TorchImageTower

            visual = self._visual()
            if (candidate.device, candidate.precision) != ("cpu", "fp32"):
                visual = copy.deepcopy(visual)  # what is moved and cast; the original may be wanted
            return TorchImageTower(visual, device=candidate.device, precision=candidate.precision)
        from models.image.openvino_runtime import OpenVinoImageTower

        folder = self._quantized() if candidate.precision == "int8" else self._converted()
        return OpenVinoImageTower(folder, precision=candidate.precision)

    def _converted(self) -> Path:
        """The folder of the fp32 graph, which serves bf16 as well."""

        def build(folder: Path) -> None:
            from models.image.torch_runtime import convert_visual

            convert_visual(self._visual(), self._source.preprocess.size, folder)

        return self._folder("openvino", _versions("openvino", "torch", "open-clip-torch"), build)

    def _quantized(self) -> Path:
        def build(folder: Path) -> None:
            from models.image.torch_runtime import quantize_graph

            images = synthetic_images(_CALIBRATION_IMAGES, seed=2)
            quantize_graph(self._converted(), images, self.preprocessor, folder)

        return self._folder("int8", _versions("openvino", "nncf"), build)

    def _by_speed(self, candidates: list[Candidate]) -> list[Candidate]:
        """Candidates, the quickest first; measured if this machine hasn't yet."""
        versions = _versions("openvino", "torch")
        key = hashlib.sha256(f"{machine_name()} {versions}".encode()).hexdigest()[:16]
        name = f"{self._place}/speed-{key}"
        record = self._cache.read_record(name) or {"machine": machine_name(), "seconds": {}}
        seconds: dict[str, float] = record["seconds"]
        missing = [c for c in candidates if str(c) not in seconds]
        for candidate in missing:
            tower = self._open_checked(candidate)
            if tower is not None:
                seconds[str(candidate)] = _seconds_per_image(tower, self.reference.pixels)
        if missing:
            self._cache.write_record(name, record)
        return sorted((c for c in candidates if str(c) in seconds), key=lambda c: seconds[str(c)])

    def _load(self) -> nn.Module:
        """The whole model in torch, loaded at most once."""
        if self._module is None:
            from models.towers import load_module

            self._module = load_module(self._source)
        return self._module

    def _visual(self) -> nn.Module:
        visual: nn.Module = self._load().get_submodule("visual")
        return visual

    def _folder(self, kind: str, versions: str, build: Callable[[Path], None]) -> Path:
        name = f"{self._place}/{kind}-{versions}-{_LAYOUT}"
        found = self._cache.find_folder(name)
        if found is None:
            found = self._cache.build_folder(name, build)
            self._cache.remove_others(found, f"{kind}-*")  # of other versions: stale
        return found

    @property
    def _name(self) -> str:
        return self._source.model_id


def _seconds_per_image(tower: ImageTower, pixels: Vectors) -> float:
    """Mean over one image alone and a batch of eight, each the median of a few runs."""
    means = []
    for batch in (pixels[:1], pixels):
        tower(batch)
        runs = []
        for _ in range(3):
            began = time.perf_counter()
            tower(batch)
            runs.append(time.perf_counter() - began)
        means.append(statistics.median(runs) / len(batch))
    return statistics.fmean(means)


def _versions(*packages: str) -> str:
    """Versions of what a cached thing was made by, as part of its name."""
    return "-".join(version(package).replace("+", "_") for package in packages)


# ---- Which backends and precisions could serve a request on this machine, in the order to try
# them.


BACKENDS = ("auto", "torch", "openvino")


PRECISIONS = ("auto", *MIN_COSINE)


@dataclass(frozen=True)
class Candidate:
    """One way to run an image tower; none of its fields is "auto"."""

    backend: str
    device: str
    precision: str

    def __str__(self) -> str:
        return f"{self.backend} on {self.device} in {self.precision}"


def precision_class(precision: str) -> str:
    """Which precisions may share an index.

    fp32, bf16 and fp16 are one class, "float": the parity guard holds each to a cosine of at least
    0.999 to fp32, so that an index need not be built again when a machine without bf16 serves it.
    The guard lets int8 be off by ten times as much: it is a class of its own.
    """
    return "int8" if precision == "int8" else "float"


def find_candidates(backend: str, device: str, precision: str) -> list[Candidate]:
    """All that fits the request; "auto" leaves a choice, never int8.

    Raises: UserError where the request names nothing that exists, or contradicts itself or the
        machine.
    """
    if backend not in BACKENDS:
        raise UserError(
            f"backend is one of {', '.join(BACKENDS)}, not {backend!r}", param="backend"
        )
    if precision not in PRECISIONS:
        raise UserError(
            f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}", param="precision"
        )
    if device == "auto":
        device = "cpu" if backend == "openvino" or precision == "int8" else _best_device()
    if device == "cpu":
        return _on_cpu(backend, precision)
    return _on_gpu(backend, device, precision)


def _on_cpu(backend: str, precision: str) -> list[Candidate]:
    if precision == "fp16":
        raise UserError("fp16 is for GPUs; on a CPU take bf16, int8 or fp32", param="precision")
    if precision == "bf16" and not cpu_has_bf16():
        raise UserError(
            "this CPU has no bf16 instructions (avx512_bf16, amx_bf16); take fp32 or int8",
            param="precision",
        )
    if precision == "int8":
        if backend == "torch":
            raise UserError("int8 runs on backend openvino only", param="backend")
        if find_spec("nncf") is None:
            raise UserError(
                f"precision int8 needs the package nncf; {how_to_install('int8')}",
                param="precision",
            )
        return [Candidate("openvino", "cpu", "int8")]
    precisions = [precision]
    if precision == "auto":
        precisions = ["bf16", "fp32"] if cpu_has_bf16() else ["fp32"]
    backends = ["openvino", "torch"] if backend == "auto" else [backend]
    return [Candidate(b, "cpu", p) for b in backends for p in precisions]


def _on_gpu(backend: str, device: str, precision: str) -> list[Candidate]:
    from models.image.torch_runtime import best_device, gpu_precisions  # imports torch

    if not device.startswith("cuda"):
        raise UserError(f"device is auto, cpu or cuda, not {device!r}", param="device")
    if backend == "openvino":
        raise UserError("backend openvino runs on the CPU; take backend torch", param="backend")
    if precision == "int8":
        raise UserError("int8 runs on the CPU only", param="precision")
    if best_device() == "cpu":
        raise UserError("torch finds no CUDA device here; take device cpu", param="device")
    precisions = gpu_precisions() if precision == "auto" else (precision,)
    return [Candidate("torch", device, p) for p in precisions]


def _best_device() -> str:
    if not has_nvidia_driver():
        return "cpu"
    from models.image.torch_runtime import best_device  # imports torch

    return best_device()
