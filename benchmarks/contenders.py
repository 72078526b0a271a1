"""Sides of a measurement as processes that take turns: one works, the others wait."""

from __future__ import annotations

import contextlib
import multiprocessing
import platform
import resource
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

MODEL = "ViT-B-32"


class Contender:
    """An object in a process of its own; its methods are called from here, one at a time."""

    def __init__(self, name: str, make: Callable[..., Any], *arguments: Any) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, make, arguments), daemon=True)
        self._process.start()
        there.close()

    def call(self, method: str, *arguments: Any) -> Any:
        """The method's result; its failure there is a failure here."""
        self._here.send((method, arguments))
        try:
            done, result = self._here.recv()
        except EOFError:
            raise RuntimeError(f"{self.name}: its process died") from None
        if not done:
            raise RuntimeError(f"{self.name}: {result}")
        return result

    def close(self) -> None:
        """End the process."""
        self._here.close()
        self._process.join(timeout=20)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()


def _serve(connection: Connection, make: Callable[..., Any], arguments: Sequence[Any]) -> None:
    made: Any = None
    while True:
        try:
            method, given = connection.recv()
        except EOFError:
            return
        try:
            if made is None:
                made = make(*arguments)
            if method == "peak_memory_mb":
                result: Any = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
            else:
                result = getattr(made, method)(*given)
            connection.send((True, result))
        except Exception:  # noqa: BLE001 - told to the parent, which stops
            connection.send((False, traceback.format_exc()))


@contextlib.contextmanager
def running(*contenders: Contender) -> Iterator[tuple[Contender, ...]]:
    """Ends the processes, whatever happens."""
    try:
        yield contenders
    finally:
        for contender in contenders:
            contender.close()


def make_model(folder: Path) -> str:
    """A ViT-B/32 with random weights, kept between runs; returns its model id."""
    if not (folder / "open_clip_model.safetensors").is_file():
        import torch

        from models.openclip import import_open_clip
        from models.towers import build_clip, save_clip

        torch.manual_seed(0)
        model_cfg = import_open_clip().get_model_config(MODEL)
        state = build_clip(model_cfg).state_dict()
        save_clip(folder, state, model_cfg=model_cfg, preprocess_cfg={}, half=False)
    return f"local-dir:{folder}"


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    from importlib.metadata import version

    from models.machine import cpu_has_bf16, machine_name

    packages = ("torch", "open-clip-torch", "openvino", "numpy", "pillow")
    return {
        "processor": machine_name(),
        "bf16": cpu_has_bf16(),
        "system": platform.platform(),
        "versions": {package: version(package) for package in packages},
    }


def in_turn(contenders: Sequence[Contender], number: int) -> Sequence[Contender]:
    """The sides in the order of round `number`: every other round backwards."""
    return contenders if number % 2 == 0 else contenders[::-1]
