"""Which backends and precisions could serve a request on this machine, in the order to try them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from models.errors import UserError
from models.golden import MIN_COSINE
from models.machine import cpu_has_bf16, has_nvidia_driver

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
                "precision int8 needs the package nncf; pip install '.[int8]'", param="precision"
            )
        return [Candidate("openvino", "cpu", "int8")]
    precisions = [precision]
    if precision == "auto":
        precisions = ["bf16", "fp32"] if cpu_has_bf16() else ["fp32"]
    backends = ["openvino", "torch"] if backend == "auto" else [backend]
    return [Candidate(b, "cpu", p) for b in backends for p in precisions]


def _on_gpu(backend: str, device: str, precision: str) -> list[Candidate]:
    from models.torch_backend import best_device, gpu_precisions  # imports torch

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
    from models.torch_backend import best_device  # imports torch

    return best_device()
