"""A model hub of a test's own on this machine, as far as downloading asks for it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serving_hub(repository: str, folder: Path) -> Iterator[str]:
    """Its address; it holds the files of a folder as one repository."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), _answering(repository, files))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answering(repository: str, files: dict[str, bytes]) -> type[BaseHTTPRequestHandler]:
    described = {
        "id": repository,
        "modelId": repository,
        "sha": COMMIT,
        "siblings": [{"rfilename": name} for name in files],
    }
    tree = [
        {"type": "file", "path": name, "size": len(held), "oid": hashlib.sha1(held).hexdigest()}
        for name, held in files.items()
    ]

    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            name = path.rpartition("/")[2]
            if "/tree/" in path:
                content, etag = json.dumps(tree).encode(), "tree"
            elif path.startswith(f"/api/models/{repository}"):
                content, etag = json.dumps(described).encode(), "described"
            elif path.startswith(f"/{repository}/resolve/") and name in files:
                content, etag = files[name], hashlib.sha1(files[name]).hexdigest()
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    return Answering
