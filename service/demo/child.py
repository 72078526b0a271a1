"""The service as a child process: for the demo, tools and tests."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from service.errors import ServiceEndedError

START_TIMEOUT_S = 1800.0  # a photograph model may have to be fetched first
STOP_TIMEOUT_S = 15.0


@dataclass(frozen=True)
class Child:
    """A service that answers at `url`."""

    url: str
    process: subprocess.Popen[str]

    def wait(self) -> None:
        """Block while it serves.

        Raises: ServiceEndedError when it ends by itself.
        """
        raise _ended(self.process)


def serve_command(port: int | None) -> list[str]:
    """The command line that serves in this interpreter.

    port: 0 takes a free one, None the one of the settings
    """
    start = [sys.executable, "-c", "from service.cli import main; main()", "serve", "--json"]
    return start if port is None else [*start, "--port", str(port)]


@contextlib.contextmanager
def serving(
    command: Sequence[str],
    *,
    start_timeout_s: float = START_TIMEOUT_S,
    stop_timeout_s: float = STOP_TIMEOUT_S,
) -> Iterator[Child]:
    """Start a service, wait until it is ready, and end it with the `with` block.

    command: prints {"url": ...} on one line of stdout once it is ready. Its stderr is this
        process's own, so that its progress and its complaints are seen as they come.

    Raises: ServiceEndedError
    """
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        with process.stdout:
            # A hung start is killed, which ends the line that is waited for.
            timer = threading.Timer(start_timeout_s, process.kill)
            timer.start()
            try:
                line = process.stdout.readline()
            finally:
                timer.cancel()
            if not line:
                raise _ended(process)
            yield Child(json.loads(line)["url"], process)
    finally:
        _stop(process, stop_timeout_s)


def _ended(process: subprocess.Popen[str]) -> ServiceEndedError:
    code = process.wait()
    return ServiceEndedError(f"the service ended with exit code {code}", exit_code=code)


def _stop(process: subprocess.Popen[str], timeout_s: float) -> None:
    """End the service in an orderly way; kill it when it does not listen."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
