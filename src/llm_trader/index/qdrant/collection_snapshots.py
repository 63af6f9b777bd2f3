"""Snapshots of a collection on one node: created, downloaded, uploaded, over the node's REST.

A snapshot holds the shards of its own node. A cluster needs one snapshot per node, and each goes
back to a node of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from llm_trader.errors import ConfigurationError, VectorIndexError
from llm_trader.index.qdrant.config import QdrantServer, address_in
from llm_trader.index.qdrant.errors import key_of, missing_extra

if TYPE_CHECKING:
    import httpx

# It is called with the number of bytes done.
OnBytes = Callable[[int], None]

# Creating or loading a snapshot of many gigabytes takes the server that long, and it is silent.
_SLOW_S: Final = 3600.0
_SILENT_S: Final = 60.0
_PAUSE_S: Final = 0.25  # between looks at the shards, which take seconds to load
_BINARY: Final = "application/octet-stream"

_WORDS: Final = {
    401: "does not accept the API key in {key}",
    403: "does not allow this with the API key in {key}; it needs one with more rights",
    404: "does not have that",
    413: "refuses a body of that size; raise its service.max_request_size_mb",
    507: "is out of disk space",
}


class CollectionSnapshot(msgspec.Struct, frozen=True):
    """A snapshot as the node lists it; `checksum` is the SHA-256, which old servers leave out."""

    name: str
    size: int
    checksum: str | None = None


class NodeSnapshots(AbstractAsyncContextManager["NodeSnapshots"]):
    """The snapshots of the node at a REST address. Errors are `VectorIndexError`."""

    def __init__(self, server: QdrantServer, url: str) -> None:
        self.url = url
        self._server = server
        self._client = _client(server, url)

    async def __aexit__(self, *raised: object) -> None:
        await self._client.aclose()

    async def collections(self) -> set[str]:
        """The names of all collections that the node knows; aliases are not among them."""
        result = await self._ask("listing collections", "GET", "/collections")
        return {collection["name"] for collection in result["collections"]}

    async def create(self, collection: str) -> CollectionSnapshot:
        path = f"{_path(collection)}/snapshots"
        action = f"creating a snapshot of {collection}"
        result = await self._ask(action, "POST", path, slow=True)
        return msgspec.convert(result, CollectionSnapshot)

    async def download(
        self, collection: str, snapshot: CollectionSnapshot, to: Path, on_bytes: OnBytes
    ) -> str:
        """Download into a new file; returns its SHA-256, which must be the node's checksum."""
        digest, done = hashlib.sha256(), 0
        path = f"{_path(collection)}/snapshots/{quote(snapshot.name, safe='')}"
        with to.open("xb") as file:
            async with self._reply("downloading a snapshot", "GET", path) as reply:
                async for chunk in reply.aiter_bytes(1 << 20):
                    file.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    on_bytes(done)
        sha256 = digest.hexdigest()
        if snapshot.checksum is not None and sha256 != snapshot.checksum.lower():
            raise VectorIndexError(
                f"snapshot {snapshot.name} of {self._address} arrived damaged ({done} of "
                f"{snapshot.size} bytes); make the backup again"
            )
        return sha256

    async def delete(self, collection: str, snapshot: CollectionSnapshot) -> None:
        """Delete a snapshot from the node's disk."""
        path = f"{_path(collection)}/snapshots/{quote(snapshot.name, safe='')}"
        await self._ask("deleting a snapshot", "DELETE", path, slow=True)

    async def upload(self, collection: str, file: Path, sha256: str, on_bytes: OnBytes) -> None:
        """Replace the node's part of a collection by that of a snapshot."""
        path = f"{_path(collection)}/snapshots/upload"
        parameters = {"priority": "snapshot", "wait": "true", "checksum": sha256}
        with file.open("rb") as content:
            form = {"snapshot": (file.name, _Watched(content, on_bytes), _BINARY)}
            action = f"uploading a snapshot as {collection}"
            await self._ask(action, "POST", path, slow=True, params=parameters, files=form)

    async def until_active(self, collection: str) -> None:
        """Wait until all shards of a collection can be searched; an hour at most."""
        action, waiting = f"waiting for the shards of {collection}", "shards"
        try:
            async with asyncio.timeout(_SLOW_S):
                while True:
                    waiting = await self._not_active(action, collection)
                    if not waiting:
                        return
                    await asyncio.sleep(_PAUSE_S)
        except TimeoutError:
            raise VectorIndexError(
                f"Qdrant at {self._address} still has {waiting} of {collection} not active; look "
                "at its log"
            ) from None

    async def _not_active(self, action: str, collection: str) -> str:
        result = await self._ask(action, "GET", f"{_path(collection)}/cluster")
        shards = [*result["local_shards"], *result["remote_shards"]]
        states = [f"shard {s['shard_id']} {s['state']}" for s in shards if s["state"] != "Active"]
        states += [f"a transfer of shard {s['shard_id']}" for s in result["shard_transfers"]]
        return ", ".join(states)

    async def _ask(
        self, action: str, method: str, path: str, *, slow: bool = False, **content: Any
    ) -> Any:
        async with self._reply(action, method, path, slow=slow, **content) as reply:
            try:
                return msgspec.json.decode(await reply.aread())["result"]
            except (msgspec.MsgspecError, KeyError, TypeError):
                raise VectorIndexError(
                    f"{self._address} answers, but not as Qdrant does (while {action}); is its url "
                    "that of the REST service?"
                ) from None

    @asynccontextmanager
    async def _reply(
        self, action: str, method: str, path: str, *, slow: bool = False, **content: Any
    ) -> AsyncIterator[httpx.Response]:
        import httpx

        limit_s = max(self._server.timeout_s, _SILENT_S)
        limits = httpx.Timeout(limit_s, connect=self._server.timeout_s)
        if slow:
            limits = httpx.Timeout(_SLOW_S, connect=self._server.timeout_s)
        try:
            async with self._client.stream(method, path, timeout=limits, **content) as reply:
                if reply.is_error:
                    raise self._refusal(reply.status_code, action, await reply.aread())
                yield reply
        except httpx.HTTPError as error:
            raise self._lost(error, action) from error

    def _refusal(self, status: int, action: str, body: bytes) -> VectorIndexError:
        words = _WORDS.get(status, f"fails with HTTP status {status}")
        does = words.format(key=key_of(self._server))
        return self._error(does, action, _reason(body))

    def _lost(self, error: httpx.HTTPError, action: str) -> VectorIndexError:
        import httpx

        if isinstance(error, httpx.TimeoutException):
            does = "did not answer in time; look at its load, or raise index.qdrant.timeout_s"
        elif "certificate" in str(error).lower() or "ssl" in str(error).lower():
            does = "fails at TLS; check that it speaks https, and index.qdrant.ca_file"
        elif isinstance(error, httpx.ConnectError):
            does = "cannot be reached; is it running, and its url right?"
        else:
            does = "broke the connection; look at its log, and try again"
        return self._error(does, action, str(error))

    def _error(self, does: str, action: str, reason: str) -> VectorIndexError:
        key = self._server.api_key
        reason = reason.replace(key, "***") if key else reason
        details = f"{action}: {reason}" if reason else action
        return VectorIndexError(f"Qdrant at {self._address} {does} (while {details})")

    @property
    def _address(self) -> str:
        return address_in(self.url)


class _Watched:
    """A file that reports how far it was read."""

    def __init__(self, file: IO[bytes], on_bytes: OnBytes) -> None:
        self._file, self._progress = file, on_bytes

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self._progress(self._file.tell())
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fileno(self) -> int:
        return self._file.fileno()


def _client(server: QdrantServer, url: str) -> httpx.AsyncClient:
    try:
        import httpx
    except ImportError as error:
        raise missing_extra() from error
    headers = {} if server.api_key is None else {"api-key": server.api_key}
    # Nodes are addressed directly: a proxy of the environment would not know them.
    return httpx.AsyncClient(base_url=url, headers=headers, verify=_tls(server), trust_env=False)


def _tls(server: QdrantServer) -> ssl.SSLContext:
    if server.ca_file is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=server.ca_file)
    except OSError as error:  # also what OpenSSL raises for content that is no certificate
        raise ConfigurationError(
            f"index.qdrant.ca_file {server.ca_file} cannot be read: {error.strerror or error}"
        ) from error


def _path(collection: str) -> str:
    return f"/collections/{quote(collection, safe='')}"


def _reason(body: bytes) -> str:
    """The reason that Qdrant gives, if it is Qdrant that answered."""
    try:
        return str(msgspec.json.decode(body)["status"]["error"])
    except (msgspec.MsgspecError, KeyError, TypeError):
        return ""
