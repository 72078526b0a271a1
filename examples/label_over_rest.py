"""Label a folder of images over REST: concurrent requests, each with retries.

    clipdex serve &
    python examples/label_over_rest.py photos --labels "bird,dog,car" > labels.jsonl

Prints one JSON object for each image, in the order of the folder. The exit code is 3 if any failed.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
TRIES = 6


async def label(client: httpx.AsyncClient, path: Path, asked: dict[str, str]) -> dict[str, Any]:
    """The server's answer for one image, or why there is none."""
    wait, reason = 0.25, ""
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(wait)
            wait *= 2
        try:
            response = await client.post("/v1/classify", params=asked, content=path.read_bytes())
        except httpx.TransportError as error:  # refused, cut off, too slow: perhaps a restart
            reason = f"{type(error).__name__}: {error}"
            continue
        if response.status_code in (429, 502, 503, 504):  # busy: the server says for how long
            reason = f"the server is busy ({response.status_code})"
            wait = max(wait, float(response.headers.get("Retry-After", 0)))
            continue
        if response.status_code != 200:  # nothing that would be better another time
            return {"file": str(path), "error": error_of(response)}
        return {"file": str(path), **response.json()["results"][0]}
    return {"file": str(path), "error": f"gave up after {TRIES} tries: {reason}"}


def error_of(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {response.status_code}"


async def label_all(options: argparse.Namespace) -> int:
    """Every image of the folder; returns how many failed."""
    paths = sorted(p for p in options.folder.rglob("*") if p.suffix.lower() in ENDINGS)
    asked = {"top_k": str(options.top_k)}
    asked |= {"labels": options.labels} if options.labels else {"index": options.index}
    headers = {"Authorization": f"Bearer {options.key}"} if options.key else {}
    failed = 0
    async with httpx.AsyncClient(base_url=options.url, headers=headers, timeout=60) as client:
        # A window that slides over the folder: never more than this many requests or answers.
        waiting: list[asyncio.Task[dict[str, Any]]] = []
        for path in [*paths, None]:
            while waiting and (path is None or len(waiting) == options.at_once):
                answer = await waiting.pop(0)
                failed += "error" in answer
                print(json.dumps(answer, ensure_ascii=False), flush=True)
            if path is not None:
                waiting.append(asyncio.create_task(label(client, path, asked)))
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--index", default="default", help="index to compare with")
    parser.add_argument("--labels", help="labels to compare with instead, separated by commas")
    parser.add_argument("--top-k", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=8, help="requests under way at a time")
    parser.add_argument("--key", help="API key, if the server wants one")
    return 3 if asyncio.run(label_all(parser.parse_args())) else 0


if __name__ == "__main__":
    sys.exit(main())
