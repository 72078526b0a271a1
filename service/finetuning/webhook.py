"""Telling another system that a job has ended: one signed POST, a bounded number of times.

    X-Clipdex-Timestamp: 1732197600                        seconds since 1970
    X-Clipdex-Signature: sha256=HMAC(secret, timestamp + "." + body), in hex
    X-Clipdex-Job: the job's id: the same call may come twice, after a server died at the wrong time

Only addresses that the settings allow are ever called, redirects aren't followed, and no proxy of
the environment is used: whoever may start jobs may not send this server anywhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from models.errors import ClipdexError
from service.errors import CallbackError
from service.finetuning.queue import JobQueue, Record
from service.settings import Settings

if TYPE_CHECKING:
    from httpx import AsyncClient

log = logging.getLogger("clipdex")
_TRIES = 5
_FIRST_PAUSE = 1.0  # seconds; doubled after each try
_TIMEOUT = 10.0
_PORTS = {"http": 80, "https": 443}


def check_callback(url: str, settings: Settings) -> None:
    """Raises: CallbackError unless calls to this address are allowed and can be signed."""
    if not any(_covers(allowed, url) for allowed in settings.callback_urls):
        raise CallbackError(
            f"{url!r} isn't below an address of CLIPDEX_CALLBACK_URLS", param="callback_url"
        )
    if settings.callback_secret is None:
        raise CallbackError(
            "callbacks are signed, and there is no CLIPDEX_CALLBACK_SECRET", param="callback_url"
        )


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """The signature's header value."""
    mac = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256)
    return f"sha256={mac.hexdigest()}"


class Notifier:
    """Sends the callbacks of ended jobs, each on a task of its own. Lives on the event loop.

    describe: what a client sees of a job
    """

    def __init__(
        self,
        settings: Settings,
        queue: JobQueue,
        describe: Callable[[Record], Mapping[str, Any]],
        *,
        first_pause: float = _FIRST_PAUSE,
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._describe = describe
        self._first_pause = first_pause
        self._tasks: set[asyncio.Task[None]] = set()

    def ended(self, record: Record) -> None:
        """Deal with an ended job's callback; returns at once."""
        task = asyncio.create_task(self._deal_with(record))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Drop what isn't sent yet: the next server sends it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _deal_with(self, record: Record) -> None:
        try:
            url = record.options.get("callback_url")
            if url is not None:
                await self._send(str(url), record)
            await asyncio.to_thread(self._queue.mark_told, record.id)
        except ClipdexError as error:
            log.error("the callback of the job %s isn't sent: %s", record.id, error)

    async def _send(self, url: str, record: Record) -> None:
        check_callback(url, self._settings)  # the settings may have changed since
        # Imported here, because few servers ever call anyone.
        import httpx

        body = json.dumps(dict(await asyncio.to_thread(self._describe, record))).encode()
        pause = self._first_pause
        async with httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False) as client:
            for attempt in range(1, _TRIES + 1):
                said = await self._try(client, url, record.id, body)
                if said is None:
                    return
                log.warning("callback of job %s, try %d: %s", record.id, attempt, said)
                if attempt < _TRIES:
                    await asyncio.sleep(pause)
                    pause *= 2
        log.error("the callback of the job %s is given up after %d tries", record.id, _TRIES)

    async def _try(self, client: AsyncClient, url: str, job: str, body: bytes) -> str | None:
        """None if it was received; else what went wrong."""
        import httpx

        assert self._settings.callback_secret is not None
        timestamp = str(int(time.time()))
        signature = sign(self._settings.callback_secret.get_secret_value(), timestamp, body)
        headers = {
            "Content-Type": "application/json",
            "X-Clipdex-Timestamp": timestamp,
            "X-Clipdex-Signature": signature,
            "X-Clipdex-Job": job,
        }
        try:
            answer = await client.post(url, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return repr(error)
        return None if answer.is_success else f"it answered {answer.status_code}"


def _covers(allowed: str, url: str) -> bool:
    """Whether `url` is `allowed` itself, or lies below it."""
    try:
        inside, outside = urlsplit(url), urlsplit(allowed)
        if _origin(inside) != _origin(outside):
            return False
    except ValueError:  # a port that is no number, an address in brackets that is none
        return False
    if inside.username is not None or inside.password is not None:
        return False
    path = inside.path or "/"
    if "\\" in url or _climbs(path.split("/")) or "%2e" in path.lower() or "%2f" in path.lower():
        return False
    below = outside.path.rstrip("/")
    return path == outside.path or path.startswith(f"{below}/") or path == below


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def _climbs(parts: Sequence[str]) -> bool:
    return ".." in parts or "." in parts
