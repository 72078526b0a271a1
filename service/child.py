"""The service as a child process, spoken to over HTTP: for the demo, tools and tests."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Self

import httpx
from rich.console import Console

from models.errors import ClipdexError
from service.errors import PortError

HOST = "127.0.0.1"
START_TIMEOUT_S = 1800.0  # a photograph model may have to be fetched first
POLL_S = 0.1


class ServiceFailedError(ClipdexError):
    """The service ended, or never became ready."""

    code = "service_failed"


def claim_port(port: int) -> int:
    """The port to serve on; 0 finds a free one.

    Raises: PortError
    """
    with socket.socket() as probe:
        # As the server will do: what was closed a moment ago does not count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PortError(
                f"port {port} of {HOST} can't be had ({error.strerror}); stop what listens there "
                f"or take another: CLIPDEX_PORT={port + 1} make run",
                param="port",
            ) from error
        return int(probe.getsockname()[1])


def serve_command(port: int) -> list[str]:
    """The command line that serves on `port`, in this interpreter."""
    start = "from service.cli import main; main()"
    return [sys.executable, "-c", start, "serve", "--host", HOST, "--port", str(port)]


class Child:
    """The service as a child process.

    Its log is kept to explain a failure, and passed on to `console` once `echo` is set.
    """

    def __init__(self, command: Sequence[str], url: str, console: Console) -> None:
        self.url = url
        self.echo = False
        self._console = console
        self._tail: deque[str] = deque(maxlen=20)
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as log:
            for line in log:
                self._tail.append(line.rstrip())
                if self.echo:
                    self._console.print(line.rstrip(), style="dim", markup=False, highlight=False)

    def wait_ready(
        self,
        client: httpx.Client,
        *,
        on_state: Callable[[str], None] | None = None,
        timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        """Return when /readyz says so; tell `on_state` each new reason why it doesn't yet.

        Raises: ServiceFailedError with the service's reason or the last line of its log.
        """
        deadline = time.monotonic() + timeout_s
        told = ""
        while time.monotonic() < deadline:
            self._still_running()
            with contextlib.suppress(httpx.TransportError):
                response = client.get("/readyz")
                if response.is_success:
                    return
                state = response.json()
                reason = str(state.get("reason") or state["status"])
                if state["status"] == "failed":
                    raise ServiceFailedError(reason)
                if on_state and reason != told:
                    on_state(told := reason)
            time.sleep(POLL_S)
        raise ServiceFailedError(
            f"the service was not ready after {timeout_s:.0f} s; {self._last()}"
        )

    def _still_running(self) -> None:
        code = self._process.poll()
        if code is not None:
            self._reader.join(timeout=5)
            raise ServiceFailedError(f"the service ended with exit code {code}; {self._last()}")

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative if a signal ended it."""
        return self._process.poll()

    def log(self) -> list[str]:
        """The last lines that the service wrote."""
        return list(self._tail)

    def _last(self) -> str:
        said = [line for line in self.log() if line.strip()]
        return f"its last words: {said[-1]}" if said else "it said nothing"

    def wait(self) -> None:
        """Block while the service serves.

        Raises: ServiceFailedError when it ends by itself.
        """
        self._process.wait()
        self._still_running()

    def stop(self, timeout_s: float = 15.0) -> None:
        """End the service in an orderly way; kill it when it does not listen."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(timeout=5)
