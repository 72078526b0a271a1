"""Files from the model hub: from its cache on this machine first, from the network if need be.

Only safetensors are fetched as weights. Checkpoints in `.bin`, `.pt` or `.pth` are pickles, which
run code when they are opened; this code never opens one, whatever name or tag leads to it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.errors import ModelUnavailableError, UnknownModelError

CONFIG_NAME = "open_clip_config.json"
# As open_clip looks for them, the usual one first.
WEIGHTS_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
)
OnProgress = Callable[[str, int, int | None], None]
"""Called with a file's name, its bytes so far and its bytes in all (None: not told)."""


def fetch(
    repo: str,
    names: tuple[str, ...],
    *,
    model_id: str,
    refresh: bool = False,
    on_progress: OnProgress | None = None,
) -> Path:
    """The first of `names` that the repository holds, as a file on this machine.

    refresh: ask the hub even where a copy is cached, which then is used if the hub is out of reach

    Raises: UnknownModelError where there is no such repository; ModelUnavailableError where the
        hub can't be reached, denies access, or has none of the files.
    """
    import huggingface_hub  # a tenth of a second that a warm start doesn't need

    if not refresh:
        for name in names:
            cached = huggingface_hub.try_to_load_from_cache(repo, name)
            if isinstance(cached, str):
                return Path(cached)
    return _download(repo, names, model_id, on_progress)


def _download(
    repo: str, names: tuple[str, ...], model_id: str, on_progress: OnProgress | None
) -> Path:
    import httpx
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    host = constants.ENDPOINT
    for name in names:
        bar = None if on_progress is None else _bar(name, on_progress)
        try:
            return Path(hf_hub_download(repo, name, tqdm_class=bar))
        except HFValidationError as exc:
            raise UnknownModelError(
                f"{model_id}: {repo!r} is no repository name; write hf-hub:ORGANISATION/NAME",
                param="model",
            ) from exc
        except GatedRepoError as exc:
            raise ModelUnavailableError(
                f"{model_id}: {repo} asks for its licence to be accepted at {host}/{repo}, and for"
                " a token (HF_TOKEN)",
                param="model",
            ) from exc
        except RepositoryNotFoundError as exc:
            raise UnknownModelError(
                f"{model_id}: {host} has no public repository {repo}; check the name, or set"
                " HF_TOKEN if it is private",
                param="model",
            ) from exc
        except LocalEntryNotFoundError as exc:
            reason = exc.__cause__ or exc
            raise ModelUnavailableError(
                f"{model_id}: {name} of {repo} is neither in the cache ({constants.HF_HUB_CACHE})"
                f" nor could {host} be reached ({type(reason).__name__}); run `clipdex models pull"
                f" {model_id}` where there is internet, or use local-dir:FOLDER",
                param="model",
            ) from exc
        except EntryNotFoundError:
            continue
        except (OSError, httpx.HTTPError) as exc:
            raise ModelUnavailableError(
                f"{model_id}: {name} of {repo} could not be downloaded from {host} ({exc}); run"
                f" `clipdex models pull {model_id}` again",
                param="model",
            ) from exc
    raise ModelUnavailableError(
        f"{model_id}: {repo} at {host} holds none of {', '.join(names)}; weights are read from"
        " safetensors only, never from pickles (.bin, .pt, .pth)",
        param="model",
    )


def _bar(name: str, on_progress: OnProgress) -> type[Any]:
    """A progress bar, as huggingface_hub wants one, that calls back instead of drawing."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "file": io.StringIO(), "disable": False})

        def display(self, msg: str | None = None, pos: int | None = None) -> bool:
            on_progress(name, int(self.n), None if self.total is None else int(self.total))
            return True

    return Bar
