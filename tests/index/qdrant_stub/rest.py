"""The part of Qdrant's REST that the client and the tests use, and the stub's own /stub/ paths."""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .cluster import cluster_json, cluster_of, peers_json
from .errors import QdrantError, bad_request, from_engine, not_found, unauthorized
from .faults import Delay, Fault, Mischief
from .services import TITLE, VERSION
from .snapshots import Snapshots
from .store import Store

OPEN_PATHS = ("/", "/healthz", "/livez", "/readyz")


class Request:
    """What a route needs of a request."""

    def __init__(self, query: str, headers: Any, body: bytes) -> None:
        self.query = {key: values[-1] for key, values in parse_qs(query).items()}
        self.headers = headers
        self.body = body

    def json(self) -> dict[str, Any]:
        try:
            return json.loads(self.body or b"{}")
        except ValueError as error:
            raise bad_request(f"Format error in JSON body: {error}") from error

    def form_file(self, field: str) -> bytes:
        """A file of a multipart form."""
        found = re.search(r'boundary="?([^";]+)', self.headers.get("content-type", ""))
        if found is None:
            raise bad_request("Could not find Content-Type header with a boundary")
        for part in self.body.split(b"--" + found[1].encode()):
            head, _, content = part.partition(b"\r\n\r\n")
            if f'name="{field}"'.encode() in head:
                return content.removesuffix(b"\r\n")
        raise bad_request(f"Field is missing: {field}")


Route = Callable[..., Any]


class Rest:
    def __init__(self, store: Store, mischief: Mischief, api_key: str | None) -> None:
        self.store = store
        self.mischief = mischief
        self.api_key = api_key
        self.snapshots = Snapshots(store)
        snapshot = "/collections/([^/]+)/snapshots"
        self.routes: list[tuple[str, str, Route]] = [
            ("GET", "/collections", self.list_collections),
            ("GET", "/collections/([^/]+)/exists", self.exists),
            ("GET", "/collections/([^/]+)/cluster", self.collection_cluster),
            ("GET", "/cluster", self.cluster),
            ("GET", snapshot, self.list_snapshots),
            ("POST", snapshot, self.create_snapshot),
            ("POST", snapshot + "/upload", self.upload),
            ("PUT", snapshot + "/recover", self.recover),
            ("GET", snapshot + "/([^/]+)", self.download),
            ("DELETE", snapshot + "/([^/]+)", self.delete_snapshot),
        ]
        self.controls: list[tuple[str, str, Route]] = [
            ("POST", "/stub/faults", self.add_fault),
            ("DELETE", "/stub/faults", self.clear_faults),
            ("POST", "/stub/delay", self.set_delay),
            ("GET", "/stub/calls", self.calls),
            ("DELETE", "/stub/calls", self.forget_calls),
            ("POST", "/stub/optimize/([^/]+)", self.optimize),
        ]

    def authorize(self, headers: Any) -> None:
        given = headers.get("api-key")
        bearer = headers.get("authorization", "")
        if given is None and bearer.startswith("Bearer "):
            given = bearer.removeprefix("Bearer ")
        if self.api_key is not None and given != self.api_key:
            raise unauthorized(given)

    def answer(self, routes: list[tuple[str, str, Route]], method: str, path: str) -> Route:
        for verb, pattern, route in routes:
            found = re.fullmatch(pattern, path)
            if found is not None and verb == method:
                arguments = [unquote(each) for each in found.groups()]
                return lambda request: route(request, *arguments)
        raise not_found(f"no route for {method} {path}")

    def list_collections(self, request: Request) -> Any:
        return {"collections": [{"name": name} for name in sorted(self.store.collections)]}

    def exists(self, request: Request, name: str) -> Any:
        return {"exists": self.store.aliases.get(name, name) in self.store.collections}

    def collection_cluster(self, request: Request, name: str) -> Any:
        with self.store.lock:
            return cluster_json(cluster_of(self.store.resolve(name), self.store.peers))

    def cluster(self, request: Request) -> Any:
        return peers_json(self.store.peers)

    def list_snapshots(self, request: Request, name: str) -> Any:
        return [snapshot.json() for snapshot in self.snapshots.all(name)]

    def create_snapshot(self, request: Request, name: str) -> Any:
        return self.snapshots.create(name).json()

    def download(self, request: Request, name: str, snapshot: str) -> bytes:
        return self.snapshots.find(name, snapshot).path.read_bytes()

    def delete_snapshot(self, request: Request, name: str, snapshot: str) -> Any:
        self.snapshots.delete(name, snapshot)
        return True

    def upload(self, request: Request, name: str) -> Any:
        content = request.form_file("snapshot")
        self.snapshots.restore(name, content, request.query.get("checksum"))
        return True

    def recover(self, request: Request, name: str) -> Any:
        body = request.json()
        content = _fetch(body["location"], body.get("api_key"))
        self.snapshots.restore(name, content, body.get("checksum"))
        return True

    def add_fault(self, request: Request) -> Any:
        self.mischief.add(Fault(**request.json()))
        return True

    def clear_faults(self, request: Request) -> Any:
        self.mischief.clear()
        return True

    def set_delay(self, request: Request) -> Any:
        self.mischief.slow_down(Delay(**request.json()))
        return True

    def calls(self, request: Request) -> Any:
        return self.mischief.calls()

    def forget_calls(self, request: Request) -> Any:
        self.mischief.forget_calls()
        return True

    def optimize(self, request: Request, name: str) -> Any:
        with self.store.lock:
            return self.store.resolve(name).shard.optimize()


def _fetch(location: str, api_key: str | None) -> bytes:
    parts = urlsplit(location)
    if parts.scheme not in ("file", "http", "https"):
        raise bad_request(f"Cannot download snapshot from {location}")
    if parts.scheme == "file" and not Path(unquote(parts.path)).is_file():
        raise bad_request(f"Snapshot file {unquote(parts.path)} does not exist")
    headers = {} if api_key is None else {"api-key": api_key}
    request = urllib.request.Request(location, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as reply:
        return reply.read()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    rest: Rest

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def respond(self) -> None:
        path = urlsplit(self.path)
        request = Request(path.query, self.headers, self._body())
        try:
            status, content = 200, self._result(path.path, request)
        except QdrantError as error:
            status, content = error.http_status, _failure(error.message)
        except Exception as error:  # noqa: BLE001 - the engine raises nothing more precise
            failure = from_engine(error)
            status, content = failure.http_status, _failure(failure.message)
        binary = isinstance(content, bytes)
        body = content if binary else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream" if binary else JSON)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.respond()

    def do_POST(self) -> None:
        self.respond()

    def do_PUT(self) -> None:
        self.respond()

    def do_DELETE(self) -> None:
        self.respond()

    def _result(self, path: str, request: Request) -> Any:
        rest = self.rest
        if path.startswith("/stub/"):
            return rest.answer(rest.controls, self.command, path)(request)
        rest.mischief.count(f"{self.command} {path}")
        if path == "/":
            return {"title": TITLE, "version": VERSION}
        if path in OPEN_PATHS:
            return f"{path[1:]} check passed".encode()
        rest.authorize(self.headers)
        result = rest.answer(rest.routes, self.command, path)(request)
        if isinstance(result, bytes):
            return result
        return {"result": result, "status": "ok", "time": 0.0}

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)


JSON = "application/json"


def _failure(message: str) -> dict[str, Any]:
    return {"status": {"error": message}, "time": 0.0}


def serve(rest: Rest, port: int) -> ThreadingHTTPServer:
    bound = type("BoundHandler", (Handler,), {"rest": rest})
    server = ThreadingHTTPServer(("127.0.0.1", port), bound)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
