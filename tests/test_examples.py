"""Each script of examples/ does what its first lines say, as a process of its own."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from service.demo.__main__ import sample_paths
from service.demo.child import serve_command, serving

ROOT = Path(__file__).parents[1]
LABELS = "red apple,house,fish,umbrella"


def run(script: str, *arguments: str | Path, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / script, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Drawings of four things, one of them twice, and a file that is no image."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    wanted = {f"{label.replace(' ', '_')}.png" for label in LABELS.split(",")}
    for path in sample_paths():
        if path.name in wanted:
            shutil.copy(path, folder)
    shutil.copy(folder / "fish.png", folder / "more" / "fish.png")
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


def labels_of(out: str) -> dict[str, str | None]:
    """The best label of each file, None where there is an error; in the order of the lines."""
    answers = [json.loads(line) for line in out.splitlines()]
    return {
        Path(answer["file"]).name: None if "error" in answer else answer["matches"][0]["label"]
        for answer in answers
    }


EXPECTED = {
    "broken.jpg": None,
    "fish.png": "fish",
    "house.png": "house",
    "red_apple.png": "red apple",
    "umbrella.png": "umbrella",
}


def test_label_in_process(photos: Path) -> None:
    out = run("label_in_process.py", photos, "--labels", LABELS, code=3)
    assert labels_of(out) == EXPECTED
    assert out.count("\n") == 6


def test_sort_by_label(photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "sorted"
    out = run("sort_by_label.py", photos, place, "--labels", LABELS)
    found = sorted(str(path.relative_to(place)) for path in place.rglob("*.*"))
    assert found == [
        "fish/fish-2.png",
        "fish/fish.png",
        "house/house.png",
        "red apple/red_apple.png",
        "umbrella/umbrella.png",
        "unreadable/broken.jpg",
    ]
    assert out.splitlines()[0].split() == ["2", "fish"]
    assert len(list(photos.rglob("*.*"))) == 6
    run(
        *("sort_by_label.py", photos, tmp_path / "moved", "--labels", LABELS),
        *("--min-probability", "1", "--move"),
    )
    assert list(photos.rglob("*.*")) == []
    assert len(list((tmp_path / "moved" / "unknown").iterdir())) == 5


def test_label_over_rest(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CLIPDEX_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CLIPDEX_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with serving(serve_command(0), start_timeout_s=240) as child:
        out = run("label_over_rest.py", photos, "--url", child.url, "--labels", LABELS, code=3)
    assert labels_of(out) == EXPECTED
    assert "not an image" in json.loads(out.splitlines()[0])["error"]


class Moody(http.server.BaseHTTPRequestHandler):
    """Says that it is busy, hangs up, fails, and only then answers."""

    asked: dict[bytes, int]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        count = self.asked[body] = self.asked.get(body, 0) + 1
        if count == 1:
            self.answer(503, {"error": {"message": "busy"}})
        elif count == 2:
            self.close_connection = True
        else:
            matches = [{"label": body.decode(), "score": 1, "probability": 1}]
            self.answer(200, {"results": [{"matches": matches}]})

    def answer(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Not into the test's output."""


def test_label_over_rest_tries_again(tmp_path: Path) -> None:
    for at in range(20):
        (tmp_path / f"{at:02}.png").write_bytes(str(at).encode())
    handler = type("Handler", (Moody,), {"asked": {}})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}"
            out = run("label_over_rest.py", tmp_path, "--url", url)
        finally:
            server.shutdown()
            thread.join()
    assert list(labels_of(out).items()) == [(f"{at:02}.png", str(at)) for at in range(20)]
    assert set(handler.asked.values()) == {3}
