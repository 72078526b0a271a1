"""A stand-in for the model hub: the part of its HTTP protocol that downloads files."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


def commit_of(repo: Path) -> str:
    """Changes with the repository's content, as a commit does."""
    digest = hashlib.sha1(usedforsecurity=False)
    for file in sorted(repo.glob("*")):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


class HubServer:
    """Serves FOLDER/ORGANISATION/NAME/FILE as the hub does, from a thread.

    requests: "METHOD /path" of all that came, in order
    gated: repositories that answer as those do whose licence must be accepted first
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[str] = []
        self.gated: set[str] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, *, body: bool) -> None:
                path = unquote(urlsplit(self.path).path)
                hub.requests.append(f"{self.command} {path}")
                repo, _, name = path.strip("/").partition("/resolve/main/")
                file = hub.folder / repo / name
                if repo in hub.gated:
                    self.refuse(403, "GatedRepo")
                elif not name or not (hub.folder / repo).is_dir():
                    self.refuse(401, "RepoNotFound")
                elif not file.is_file():
                    self.refuse(404, "EntryNotFound")
                else:
                    data = file.read_bytes()
                    self.send_response(200)
                    self.send_header("X-Repo-Commit", commit_of(hub.folder / repo))
                    self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    if body:
                        self.wfile.write(data)

            def refuse(self, status: int, code: str) -> None:
                self.send_response(status)
                self.send_header("X-Error-Code", code)
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        return Handler
