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
    from huggingface_hub.errors import HFValidationError  # what a warm start needs nothing of

    try:
        cached = _cached(repo, names)
    except HFValidationError as exc:
        raise UnknownModelError(
            f"{model_id}: {repo!r} is no repository name; write hf-hub:ORGANISATION/NAME",
            param="model",
        ) from exc
    if cached is not None and not refresh:
        return cached
    try:
        return _download(repo, names, model_id, on_progress)
    except _UnreachableError as exc:
        if cached is not None:
            return cached
        raise ModelUnavailableError(exc.message, param="model") from exc


class _UnreachableError(ModelUnavailableError):
    """The hub doesn't answer."""


def _cached(repo: str, names: tuple[str, ...]) -> Path | None:
    """The first of the files that the hub's cache on this machine holds."""
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        found = try_to_load_from_cache(repo, name)
        if isinstance(found, str):
            return Path(found)
    return None


def _download(
    repo: str, names: tuple[str, ...], model_id: str, on_progress: OnProgress | None
) -> Path:
    import httpx2  # huggingface_hub's HTTP client, whose errors it lets through
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    host = constants.ENDPOINT
    for name in names:
        bar = None if on_progress is None else _bar(name, on_progress)
        try:
            # Asked first: without a network hf_hub_download tries for half a minute.
            get_hf_file_metadata(hf_hub_url(repo, name))
            return Path(hf_hub_download(repo, name, tqdm_class=bar))
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
        except EntryNotFoundError:
            continue
        except (httpx2.ConnectError, httpx2.TimeoutException, OfflineModeIsEnabled) as exc:
            raise _UnreachableError(
                f"{model_id}: {name} of {repo} is not in the cache ({constants.HF_HUB_CACHE}), and"
                f" {host} could not be reached ({type(exc).__name__}); run `clipdex models pull"
                f" {model_id}` where there is internet, or use local-dir:FOLDER",
                param="model",
            ) from exc
        except (HfHubHTTPError, httpx2.HTTPError, OSError) as exc:
            reason = (str(exc).splitlines() or [type(exc).__name__])[0]
            raise ModelUnavailableError(
                f"{model_id}: {name} of {repo} could not be downloaded from {host} ({reason}); run"
                f" `clipdex models pull {model_id}` to try again",
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
