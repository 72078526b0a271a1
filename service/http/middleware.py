"""What every request passes first: its id, its size limit, its measurements, and unforeseen errors.

Plain ASGI, because a wrapper around request and response objects would hide the client's hanging
up from the handlers.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
import secrets
import time
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import BodyTooLargeError
from service.http.problems import error_response, internal_response
from service.inference.metrics import Metrics

log = logging.getLogger("clipdex")
_CLIENT_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
# Of a body that was answered before it was read, so much is read and dropped: a connection closed
# with bytes unread is reset, and many clients then never see the answer.
_LINGER_BYTES = 256_000_000
_LINGER_SECONDS = 10.0


class RequestMiddleware:
    """The outermost middleware.

    max_body_bytes: a longer body is refused, by its Content-Length or while it is being read
    larger: limits of single paths instead
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        metrics: Metrics,
        larger: Mapping[str, int] | None = None,
    ) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.larger = larger or {}
        self.metrics = metrics
        # Unique among processes by its first half, within one by its second: no call to the system.
        self._prefix = secrets.token_hex(8)
        self._numbers = itertools.count()

    def new_id(self) -> str:
        """An id that no other request has: 32 hexadecimal digits."""
        return f"{self._prefix}{next(self._numbers):016x}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await _Exchange(self, scope, receive, send).run()


class _Exchange:
    """One request and its answer."""

    def __init__(
        self, middleware: RequestMiddleware, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self.middleware = middleware
        self.scope = scope
        self.client_receive = receive
        self.client_send = send
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        self.length = int(length) if length.isdecimal() else 0
        self.body_complete = self.length == 0 and "transfer-encoding" not in headers
        given = headers.get("x-request-id", "")
        self.id = given if _CLIENT_ID.fullmatch(given) else middleware.new_id()
        self.limit = middleware.larger.get(scope["path"], middleware.max_body_bytes)
        self.read = 0
        self.too_large = False
        self.status = 0
        scope["request_id"] = self.id

    async def run(self) -> None:
        started = time.perf_counter()
        try:
            if self.length > self.limit:
                self.too_large = True
            else:
                await self._ask_app()
            if self.too_large and not self.status:
                answer = error_response(self._too_large())
                await answer(self.scope, self.receive, self._send_and_linger)
        finally:
            path = getattr(self.scope.get("route"), "path", "unknown")
            seconds = time.perf_counter() - started
            self.middleware.metrics.request(self.scope["method"], path, self.status, seconds)

    async def receive(self) -> Message:
        message = await self.client_receive()
        if message["type"] == "http.request":
            self.read += len(message.get("body", b""))
            self.body_complete = not message.get("more_body", False)
            if self.read > self.limit:
                self.too_large = True
                raise self._too_large()
        return message

    async def send(self, message: Message) -> None:
        # Whoever caught the error of a body too large, and whatever it made of it, the answer
        # is ours.
        if not (self.too_large and not self.status):
            await self._send_and_linger(message)

    async def _ask_app(self) -> None:
        try:
            await self.middleware.app(self.scope, self.receive, self.send)
        except ClientDisconnect:
            self.status = self.status or 499
        except Exception:
            if self.too_large and not self.status:
                return
            log.exception(
                "request %s: %s %s failed", self.id, self.scope["method"], self.scope["path"]
            )
            if self.status:
                raise  # half an answer is out: the server must break the connection
            await internal_response()(self.scope, self.receive, self._send_and_linger)

    async def _send_and_linger(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)["X-Request-ID"] = self.id
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if last and not self.body_complete:
            await self.client_send({**message, "more_body": True})
            await self._drop_rest_of_body()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self.client_send(message)

    async def _drop_rest_of_body(self) -> None:
        dropped = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while dropped < _LINGER_BYTES:
                    message = await self.client_receive()
                    if message["type"] != "http.request" or not message.get("more_body", False):
                        return
                    dropped += len(message.get("body", b""))

    def _too_large(self) -> BodyTooLargeError:
        limit = self.limit / 1_000_000
        return BodyTooLargeError(
            f"the body is larger than {limit:g} MB; send fewer or smaller images"
        )
