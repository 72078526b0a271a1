"""Everything that can be set from outside, in one frozen place.

Read once, by `create_app` or the command line, and handed down from there. Every field is also an
environment variable: `CLIPDEX_` and its name in capitals.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.errors import SettingsError

MEGA = 1_000_000
_PREFIX = "CLIPDEX_"
# What Kubernetes puts into every pod where a service is called "clipdex".
_SERVICE_LINK = re.compile(r"CLIPDEX_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_\w+)")


def _user_cache() -> Path | None:
    """clipdex's folder where XDG says; None leaves it to models/."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return Path(base) / "clipdex" if base else None


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str)


class Settings(BaseSettings):
    """How this process serves or classifies."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, frozen=True, extra="forbid", env_ignore_empty=True
    )

    data: Path = Field(Path("data"), description="folder of indexes, adapters and jobs")
    cache: Path | None = Field(
        default_factory=_user_cache,
        description="folder of converted models (default: clipdex in XDG_CACHE_HOME or ~/.cache)",
    )
    model: str = Field("everyday", description="model id", min_length=1)
    backend: Literal["auto", "torch", "openvino"] = Field("auto", description="what runs the model")
    device: str = Field("auto", description="where it runs: auto, cpu, cuda")
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field(
        "auto", description="arithmetic; auto never picks int8"
    )
    index: str = Field("default", description="index that answers when a request names none")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, description="port to listen on; 0 takes a free one", ge=0, le=65535)
    max_batch: int = Field(16, description="images that the encoder takes at once", ge=1, le=1024)
    batch_wait_ms: float = Field(
        4.0, description="milliseconds a batch waits for images on their way", ge=0, le=1000
    )
    queue_size: int = Field(
        256, description="images waiting for the encoder before requests get a 503", ge=1
    )
    max_images: int = Field(64, description="images in one request", ge=1)
    max_body_mb: float = Field(64.0, description="megabytes of one request's body", gt=0)
    max_megapixels: float = Field(100.0, description="millions of pixels of one image", gt=0)
    max_labels: int = Field(1000, description="ad-hoc labels in one request", ge=1)
    text_cache: int = Field(20_000, description="text vectors kept for ad-hoc labels", ge=0)
    finetune_jobs: int = Field(
        1, description="fine-tuning jobs at once; 0: this server only queues them", ge=0, le=64
    )
    finetune_threads: int = Field(1, description="processors that one such job may use", ge=1)
    finetune_memory_mb: float = Field(
        8000.0, description="megabytes of memory that one such job may use", ge=500
    )
    finetune_minutes: float = Field(240.0, description="minutes that one such job may run", gt=0)
    finetune_upload_mb: float = Field(
        512.0, description="megabytes of one upload of labelled images", gt=0
    )
    finetune_unpacked_mb: float = Field(
        2048.0, description="megabytes of its images, unpacked", gt=0
    )
    finetune_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="folders, separated by `:`, below which jobs may name a folder to train on"
    )
    callback_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="beginnings of addresses, separated by blanks, that callbacks may be sent to",
    )
    callback_secret: SecretStr | None = Field(
        None, description="key that callbacks are signed with", min_length=16
    )
    callbacks: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="installed `clipdex.callbacks`, separated by blanks, that jobs report to"
    )

    @field_validator("port", mode="before")
    @classmethod
    def _not_a_service_link(cls, value: object) -> object:
        # Kubernetes gives every pod CLIPDEX_PORT=tcp://... where a service is called "clipdex".
        if isinstance(value, str) and value.startswith("tcp://"):
            return cls.model_fields["port"].default
        return value

    @field_validator("finetune_roots", mode="before")
    @classmethod
    def _split_folders(cls, value: object) -> object:
        return [part for part in value.split(os.pathsep) if part] if _is_text(value) else value

    @field_validator("callback_urls", "callbacks", mode="before")
    @classmethod
    def _split_words(cls, value: object) -> object:
        return value.split() if _is_text(value) else value

    @field_validator("callback_urls")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for address in value:
            parts = urlsplit(address)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"{address!r} is no beginning of an http(s) address")
        return value

    @model_validator(mode="after")
    def _queue_holds_a_request(self) -> Settings:
        if self.max_images > self.queue_size:
            raise ValueError(
                f"queue_size ({self.queue_size}) must hold one request's max_images "
                f"({self.max_images})"
            )
        return self

    @property
    def indexes(self) -> Path:
        """The folder of the indexes."""
        return self.data / "indexes"

    @property
    def prompt_cache(self) -> Path:
        """Where the vectors of prompts are kept between builds."""
        return self.data / "prompts.sqlite3"

    @property
    def adapters(self) -> Path:
        """The folder of the adapters."""
        return self.data / "adapters"

    @property
    def finetunes(self) -> Path:
        """The folder where fine-tuning jobs keep what they need and what they leave."""
        return self.data / "finetunes"

    @property
    def jobs_file(self) -> Path:
        """The queue of fine-tuning jobs."""
        return self.data / "jobs.sqlite3"

    @property
    def finetune_upload_bytes(self) -> int:
        """Bytes of one upload of labelled images."""
        return int(self.finetune_upload_mb * MEGA)

    @property
    def finetune_unpacked_bytes(self) -> int:
        """Bytes of the images in it, unpacked."""
        return int(self.finetune_unpacked_mb * MEGA)

    @property
    def max_body_bytes(self) -> int:
        """Bytes of one request's body."""
        return int(self.max_body_mb * MEGA)

    @property
    def max_pixels(self) -> int:
        """Pixels of one image."""
        return int(self.max_megapixels * MEGA)


def read_settings(**given: Any) -> Settings:
    """Settings from the environment, overridden by what was given and isn't None.

    Raises: SettingsError that names the first value that can't be used, or a variable whose name
    is no setting's.
    """
    _check_names(os.environ)
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        where = f"CLIPDEX_{name.upper()} (or its option): " if name else ""
        raise SettingsError(f"{where}{reason}", param=name or None) from error


def _check_names(environment: Mapping[str, str]) -> None:
    """Raises: SettingsError for a CLIPDEX_ variable that stands for no setting."""
    known = [_PREFIX + name.upper() for name in Settings.model_fields]
    for name in sorted(environment):
        given = name.upper()  # as pydantic-settings compares them
        if given.startswith(_PREFIX) and given not in known and not _SERVICE_LINK.fullmatch(given):
            closest = difflib.get_close_matches(given, known, n=1, cutoff=0.0)[0]
            raise SettingsError(
                f"there is no setting {name}; the closest name is {closest}", param=name
            )
