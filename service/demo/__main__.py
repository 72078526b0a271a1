"""What `make run` and `make demo` do: start the service, show it the samples, print its answers.

The service runs as a child process and is spoken to over HTTP only, so that what is shown here
is what any client gets.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.demo.child import serve_command, serving
from service.errors import RefusedError, ServiceEndedError

SAMPLES = Path(__file__).parents[1] / "samples"
TOP_K = 3


@dataclass(frozen=True)
class Answer:
    """What the service said of one sample.

    name: the sample's file name
    label: what it shows
    matches: (label, probability) of the best categories, best first
    """

    name: str
    label: str
    matches: tuple[tuple[str, float], ...]

    @property
    def right(self) -> bool:
        """Whether the best category is what the sample shows."""
        return bool(self.matches) and self.matches[0][0] == self.label


def sample_paths() -> list[Path]:
    """The bundled drawings, then the bundled photographs, each sorted by name."""
    return sorted(SAMPLES.glob("*.png")) + sorted(SAMPLES.glob("*.jpg"))


def label_of(path: Path) -> str:
    """What a sample shows is its file's name: `red_apple.png` shows a "red apple"."""
    return path.stem.replace("_", " ")


def ask(client: httpx.Client, paths: Sequence[Path], top_k: int = TOP_K) -> list[Answer]:
    """Post images in one request to /v1/classify; one answer each, in their order.

    Raises: RefusedError
    """
    files = [("files", (path.name, path.read_bytes())) for path in paths]
    try:
        response = client.post("/v1/classify", files=files, data={"top_k": str(top_k)})
    except httpx.TransportError as error:
        raise RefusedError(f"the service did not answer: {error}") from error
    if not response.is_success:
        raise RefusedError(f"the service answered {response.status_code}: {response.text[:500]}")
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
    """One row a sample: its file, then the best categories with their probabilities."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("sample", no_wrap=True)
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


def _score(answers: Sequence[Answer]) -> str:
    return f"{sum(answer.right for answer in answers)} of {len(answers)}"


def show(console: Console, answers: Sequence[Answer], seconds: float, url: str) -> None:
    """Print the table, what it comes to, and where to go from here."""
    photographs = [answer for answer in answers if answer.name.endswith(".jpg")]
    drawings = [answer for answer in answers if not answer.name.endswith(".jpg")]
    console.print()
    console.print(answer_table(answers))
    console.print(
        f"\n{_score(drawings)} drawings and {_score(photographs)} photographs have the right label"
        " first"
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


def run(*, port: int | None, once: bool) -> None:
    """Serve, show the samples' answers, and go on until interrupted unless `once`.

    port: 0 takes a free one, None the one of the settings
    Raises: ServiceEndedError, RefusedError
    """
    console = Console()
    print("Starting the service", file=sys.stderr, flush=True)
    started = time.monotonic()
    # trust_env: a proxy set for the world outside is not the way to this machine.
    with (
        interrupt_on_term(),
        serving(serve_command(port)) as child,
        httpx.Client(base_url=child.url, timeout=60.0, trust_env=False) as client,
    ):
        print(f"Ready after {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
        asked = time.monotonic()
        answers = ask(client, sample_paths())
        show(console, answers, time.monotonic() - asked, child.url)
        if not once:
            console.print("Ctrl-C stops the service.")
            child.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; exits with the service's own code where that fails."""
    parser = argparse.ArgumentParser(prog="python -m service.demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="exit after the table")
    parser.add_argument(
        "--port",
        type=int,
        help="port to serve on (default: CLIPDEX_PORT or 8000; a free one with --once)",
    )
    options = parser.parse_args(argv)
    port = 0 if options.once and options.port is None else options.port
    try:
        run(port=port, once=options.once)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
    except ServiceEndedError as error:
        if error.exit_code < 0:  # a signal ended it: nobody has said anything yet
            print(f"error: {error.message}", file=sys.stderr)
        return max(1, error.exit_code)
    except RefusedError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
