"""A load generator that costs little: requests are ready-made bytes, answers are barely parsed.

Runs in a process of its own, prints one JSON object: the seconds of every answered request, and how
many were refused. On a machine with few cores it takes its share of them all the same.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

# What infinity is told to call its model.
MODEL = "clip"
_BOUNDARY = "b6e1f0c4a7d94"


@dataclass
class Tally:
    """What happened since the warm-up ended; seconds of each answered request."""

    answered: list[float] = field(default_factory=list)
    refused: int = 0
    broken: int = 0


def request_bytes(image: bytes, path: str) -> bytes:
    """A whole HTTP request: to a path of embeddings OpenAI's JSON, else a form as of curl's."""
    if path.endswith("/embeddings"):
        uri = f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"
        body = json.dumps({"model": MODEL, "input": [uri], "modality": "image"}).encode()
        return _head(path, "application/json", len(body)) + body
    body = (
        (
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="files"; '
            f'filename="image.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        ).encode()
        + image
        + f"\r\n--{_BOUNDARY}--\r\n".encode()
    )
    return _head(path, f"multipart/form-data; boundary={_BOUNDARY}", len(body)) + body


def _head(path: str, kind: str, length: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n"
        f"Content-Type: {kind}\r\n\r\n"
    ).encode()


async def client(
    number: int, port: int, requests: list[bytes], start: float, end: float, tally: Tally
) -> None:
    """Send one request after the other until `end`; count what is answered after `start`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    turn = number
    while time.perf_counter() < end:
        began = time.perf_counter()
        writer.write(requests[turn % len(requests)])
        turn += 7  # every client its own order
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head[9:12])
            await reader.readexactly(_content_length(head))
        except (asyncio.IncompleteReadError, ConnectionError):
            tally.broken += 1
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            continue
        now = time.perf_counter()
        if now < start:
            continue
        if status == 200:
            tally.answered.append(now - began)
        else:
            tally.refused += 1
            await asyncio.sleep(0.05)
    writer.close()


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line[:15].lower() == b"content-length:":
            return int(line[15:])
    raise ValueError("an answer without Content-Length")


async def load(
    port: int, path: str, folder: Path, clients: int, warmup: float, seconds: float
) -> dict[str, object]:
    """Closed loop: each client waits for its answer before it asks again."""
    files = sorted(file for file in folder.iterdir() if file.suffix in (".jpg", ".png"))
    requests = [request_bytes(file.read_bytes(), path) for file in files]
    tally = Tally()
    start = time.perf_counter() + warmup
    cpu = 0.0

    async def note_cpu() -> None:
        nonlocal cpu
        await asyncio.sleep(warmup)
        cpu = time.process_time()

    await asyncio.gather(
        note_cpu(),
        *(
            client(number, port, requests, start, start + seconds, tally)
            for number in range(clients)
        ),
    )
    took = time.perf_counter() - start
    return {
        "answered": tally.answered,
        "refused": tally.refused,
        "broken": tally.broken,
        "seconds": took,
        "load_generator_cores": (time.process_time() - cpu) / took,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/v1/classify")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--warmup", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    result = asyncio.run(
        load(given.port, given.path, given.images, given.clients, given.warmup, given.seconds)
    )
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
