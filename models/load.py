"""`load_encoder`: from a model id to an encoder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from models.backends import BackendShop
from models.cache import Cache
from models.candidates import find_candidates, precision_class
from models.clip_encoder import ClipEncoder
from models.encoder import Encoder
from models.sources import identify, resolve
from models.torchvision_hook import declare_operators_on_import


def load_encoder(
    model_id: str,
    *,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    cache_dir: Path | str | None = None,
) -> Encoder:
    """Load a model by its id.

    model_id: `pictogram`, `ARCHITECTURE/TAG` of open_clip's table, `hf-hub:ORGANISATION/NAME` or
        `local-dir:FOLDER` in open_clip's local format
    backend: "torch", "openvino" (CPU), or "auto": the quicker, measured at the first load here
    device: "cpu", "cuda", "cuda:1", or "auto": a GPU if torch can use one
    precision: "fp32"; "bf16" (CPUs with bf16 instructions, GPUs); "fp16" (GPUs); "int8" (CPUs); or
        "auto": the quickest but int8. Each is held against torch in fp32 before it may serve.
    cache_dir: where converted models and measurements are kept; None for `~/.cache/clipdex`.
        Downloaded weights lie in the Hugging Face cache.

    The first load of a model converts it, which takes seconds and torch; later ones need neither.
    After a call `import open_clip` works, whatever build of torch is installed.

    Raises: UnknownModelError, ModelUnavailableError, ModelBrokenError; UserError where the options
        contradict each other or the machine; BackendError where no backend passes the guard.
    """
    declare_operators_on_import()
    candidates = find_candidates(backend, device, precision)
    cache = Cache(cache_dir)
    source = resolve(model_id, cache=cache)
    identity = identify(source, cache)
    shop = BackendShop(source, identity, cache)
    tower = shop.open_best(candidates)
    fingerprint = hashlib.sha256(f"{identity} {precision_class(tower.precision)}".encode())
    return ClipEncoder(source, tower, shop.reference, fingerprint=fingerprint.hexdigest()[:32])
