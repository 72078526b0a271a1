"""Labelled pictures: coloured noise, no two alike, as files, zips and servers to send them to."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from tests.service.fakes import COLOURS
from tests.service.servers import Running, wait_for

COLOUR_JOB = (sys.executable, str(Path(__file__).with_name("colour_job.py")))
# Words that say nothing to the encoder, so that there is something to learn.
SHOTS = {"zorp": "red", "quix": "blue", "blim": "green"}


def shot(colour: str, number: int, *, kind: str = "PNG") -> bytes:
    """A noisy picture of a colour; another number, another picture."""
    dice = np.random.default_rng([number, *COLOURS[colour]])
    noise = dice.integers(-60, 60, size=(16, 16, 3))
    pixels = np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def shots(count: int = 6, classes: Mapping[str, str] = SHOTS) -> dict[str, bytes]:
    """Files of `count` pictures of each class, by path."""
    return {
        f"{label}/{number}.png": shot(colour, number)
        for label, colour in classes.items()
        for number in range(count)
    }


def packed(files: Mapping[str, bytes]) -> bytes:
    """A zip of these files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def send(client: httpx.Client, archive: bytes, **fields: Any) -> httpx.Response:
    """Post a zip with these options."""
    files = {"archive": ("shots.zip", archive, "application/zip")}
    return client.post("/v1/finetunes", files=files, data=fields)


def ended(client: httpx.Client, response: httpx.Response, seconds: float = 90) -> dict[str, Any]:
    """The job that a response announces, once it has ended."""
    assert response.status_code == 202, response.text
    url = response.headers["location"]
    wait_for(lambda: client.get(url).json()["finished"], seconds)
    job: dict[str, Any] = client.get(url).json()
    return job


def colour_server(data: Path, **settings: Any) -> Running:
    """A server whose jobs know colours, too."""
    return Running(data, index="colours", job_command=COLOUR_JOB, **settings)


def begin(server: Running) -> Running:
    """Build the index "colours" and wait until the server is ready."""
    server.loaded().build("colours")
    return server.ready()
