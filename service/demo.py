"""What `make run` and `make demo` do: start the service, show it the drawings, print its answer.

The service runs as a child process and is spoken to over HTTP only, so that what is shown here
is what any client gets. Nothing of torch is imported in this process: it is up at once.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from models.errors import ClipdexError, UserError
from service.errors import PortError
from service.settings import read_settings

SAMPLES = Path(__file__).parent / "samples"
HOST = "127.0.0.1"
TOP_K = 3
START_TIMEOUT_S = 1800.0  # a photograph model may have to be fetched first
POLL_S = 0.1


class ServiceFailedError(ClipdexError):
    """The service ended, or never became ready."""

    code = "service_failed"


@dataclass(frozen=True)
class Answer:
    """What the service said of one drawing.

    name: the drawing's file name
    label: what it shows
    matches: (label, probability) of the best categories, best first
    """

    name: str
    label: str
    matches: tuple[tuple[str, float], ...]

    @property
    def right(self) -> bool:
        """Whether the best category is what the drawing shows."""
        return bool(self.matches) and self.matches[0][0] == self.label


def sample_paths() -> list[Path]:
    """The bundled drawings, sorted by name."""
    return sorted(SAMPLES.glob("*.png"))


def label_of(path: Path) -> str:
    """What a drawing shows is its file's name: `red_apple.png` shows a "red apple"."""
    return path.stem.replace("_", " ")


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

    def wait_ready(self, client: httpx.Client, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return when /readyz says so.

        Raises: ServiceFailedError with the last line of the service's log.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self._still_running()
            with contextlib.suppress(httpx.TransportError):
                if client.get("/readyz").is_success:
                    return
            time.sleep(POLL_S)
        raise ServiceFailedError(
            f"the service was not ready after {timeout_s:.0f} s; {self._last()}"
        )

    def _still_running(self) -> None:
        code = self._process.poll()
        if code is not None:
            self._reader.join(timeout=5)
            raise ServiceFailedError(f"the service ended with exit code {code}; {self._last()}")

    def _last(self) -> str:
        said = [line for line in self._tail if line.strip()]
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


def serve_command(port: int) -> list[str]:
    """The command line that serves on `port`, in this interpreter."""
    start = "from service.cli import main; main()"
    return [sys.executable, "-c", start, "serve", "--host", HOST, "--port", str(port)]


def ask(client: httpx.Client, paths: Sequence[Path], top_k: int = TOP_K) -> list[Answer]:
    """Post images in one request to /v1/classify; one answer each, in their order.

    Raises: ServiceFailedError when the service refuses.
    """
    files = [("files", (path.name, path.read_bytes(), "image/png")) for path in paths]
    try:
        response = client.post("/v1/classify", files=files, data={"top_k": str(top_k)})
    except httpx.TransportError as error:
        raise ServiceFailedError(f"the service did not answer: {error}") from error
    if not response.is_success:
        raise ServiceFailedError(
            f"the service answered {response.status_code}: {response.text[:500]}"
        )
    results: list[dict[str, Any]] = response.json()["results"]
    return [
        Answer(
            name=path.name,
            label=label_of(path),
            matches=tuple((match["label"], match["probability"]) for match in result["matches"]),
        )
        for path, result in zip(paths, results, strict=True)
    ]


def answer_table(answers: Sequence[Answer], top_k: int = TOP_K) -> Table:
    """One row a drawing: its file, then the best categories with their probabilities."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("drawing", no_wrap=True)
    for rank in range(1, top_k + 1):
        table.add_column(f"{rank}.", no_wrap=True)
        table.add_column("", justify="right", style="cyan", no_wrap=True)
    for answer in answers:
        best = "bold green" if answer.right else "bold yellow"
        cells: list[str | Text] = []
        for rank, (label, probability) in enumerate(answer.matches):
            cells += [Text(label, best if rank == 0 else ""), f"{probability:.1%}"]
        table.add_row(answer.name, *cells)
    return table


def show(console: Console, answers: Sequence[Answer], seconds: float, url: str) -> None:
    """Print the table, what it comes to, and where to go from here."""
    right = sum(answer.right for answer in answers)
    console.print()
    console.print(answer_table(answers))
    console.print(
        f"\n{right} of {len(answers)} drawings have the right label first"
        f" ({len(answers)} images in one request, {seconds:.2f} s).\n"
        f"Web page  {url}/\nAPI docs  {url}/docs",
        highlight=False,
        soft_wrap=True,
    )


@contextlib.contextmanager
def interrupt_on_term() -> Iterator[None]:
    """Let SIGTERM end this process as Ctrl-C does, so that the child never stays behind."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run(*, port: int, once: bool, console: Console, progress: Console) -> None:
    """Serve on `port`, show the drawings' answers, and go on until interrupted unless `once`.

    Raises: PortError, ServiceFailedError
    """
    url = f"http://{HOST}:{claim_port(port)}"
    command = serve_command(int(url.rsplit(":", 1)[1]))
    # trust_env: a proxy set for the world outside is not the way to this machine.
    with (
        interrupt_on_term(),
        Child(command, url, progress) as child,
        httpx.Client(base_url=url, timeout=60.0, trust_env=False) as client,
    ):
        waiting = "Starting the service: loading the model, building the default index if needed"
        started = time.monotonic()
        if not progress.is_terminal:
            progress.print(waiting, soft_wrap=True)
        with progress.status(waiting):
            child.wait_ready(client)
        progress.print(f"Ready after {time.monotonic() - started:.1f} s at {url}", highlight=False)
        asked = time.monotonic()
        answers = ask(client, sample_paths())
        show(console, answers, time.monotonic() - asked, url)
        if once:
            return
        console.print("Ctrl-C stops the service.")
        child.echo = True
        child.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; the exit code is 2 for a port that can't be had, 1 for a failed service."""
    parser = argparse.ArgumentParser(prog="python -m service.demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="exit after the table")
    parser.add_argument(
        "--port",
        type=int,
        help="port to serve on (default: CLIPDEX_PORT or 8000; a free one with --once)",
    )
    options = parser.parse_args(argv)
    progress = Console(stderr=True)
    try:
        settings = read_settings(port=0 if options.once and options.port is None else options.port)
        run(port=settings.port, once=options.once, console=Console(), progress=progress)
    except KeyboardInterrupt:
        progress.print("Stopped.")
    except ClipdexError as error:
        progress.print(f"error: {error.message}", markup=False, highlight=False, soft_wrap=True)
        return 2 if isinstance(error, UserError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
