"""The app behind a socket."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from models.errors import ClipdexError
from service.errors import PortError, RequestError
from service.http.problems import error_response
from service.http.services import Readiness

_BACKLOG = 2048
# What a stopping server grants the requests in flight, in seconds.
_GRACE = 10
_POLL = 0.02  # seconds


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises: PortError.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise PortError(f"{host!r} is no address of this machine", param="host") from error
    listener = socket.socket(family, kind, protocol)
    try:
        # A port whose last server has just gone is free; one that is listened on isn't.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        reason = (error.strerror or str(error)).lower()
        raise PortError(
            f"can't listen on {host}:{port}: {reason}; choose another port with --port or "
            "CLIPDEX_PORT (0 takes a free one)",
            param="port",
        ) from error
    return listener


def address_of(listener: socket.socket) -> str:
    """http://HOST:PORT as a browser on this machine can use it."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # compared, not listened on
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn, ended by SIGINT or SIGTERM without an error, as the answer to a wish.

    uvicorn raises the signal again once it is done, and the process ends as if it had crashed.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at the first signal; at a second SIGINT, at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            self.handle_exit(number, frame)

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's HTTP protocol, with errors in the shape of all others.

    A request that isn't HTTP never reaches the app: its URL holds bytes beyond ASCII, say.
    """

    def send_400_response(self, msg: str) -> None:
        """Answer a request that can't be parsed, and close the connection."""
        error = RequestError(
            "this is no valid HTTP request; if the URL holds letters beyond ASCII, percent-encode "
            "them (curl --data-urlencode), or send the parameters in a form or as JSON"
        )
        response = error_response(error)
        response.headers["X-Request-ID"] = secrets.token_hex(16)
        response.headers["Connection"] = "close"
        head = b"".join(b"%s: %s\r\n" % header for header in response.raw_headers)
        body = bytes(response.body)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + head + b"\r\n" + body)
        self.transport.close()


def make_server(app: FastAPI) -> Server:
    """uvicorn with our settings; what it logs goes to the process's own handlers."""
    config = uvicorn.Config(
        app,
        http=Protocol,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=_GRACE,
    )
    return Server(config)


def serve(app: FastAPI, listener: socket.socket, *, on_change: Callable[[Readiness], None]) -> None:
    """Serve until a signal ends it.

    on_change: told whenever the readiness changes
    Raises: ClipdexError if the app can never become ready.
    """
    server = make_server(app)

    async def serve_and_watch() -> None:
        watch = asyncio.create_task(_watch(app, server, on_change))
        try:
            await server.serve(sockets=[listener])
        finally:
            watch.cancel()

    # uvicorn knows whether a quicker event loop is installed.
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(serve_and_watch())
    failure: ClipdexError | None = app.state.services.failure
    if failure is not None:
        raise failure


async def _watch(app: FastAPI, server: Server, on_change: Callable[[Readiness], None]) -> None:
    seen: Readiness | None = None
    while True:
        if server.started:
            readiness = app.state.services.readiness()
            if readiness != seen:
                on_change(readiness)
                seen = readiness
            if app.state.services.failure is not None:
                server.should_exit = True
        await asyncio.sleep(_POLL)
