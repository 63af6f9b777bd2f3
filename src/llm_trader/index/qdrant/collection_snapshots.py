"""Snapshots of a collection on one node: created, downloaded, uploaded, over the node's REST.

A snapshot holds the shards of its own node. A cluster needs one snapshot per node, and each goes
back to a node of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from llm_trader.errors import VectorIndexError
from llm_trader.index.qdrant.config import QdrantServer, address_in
from llm_trader.index.qdrant.errors import (
    REJECTED_KEY,
    TLS_FAILS,
    WEAK_KEY,
    key_of,
    missing_extra,
    unreadable_ca_file,
)

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
    401: REJECTED_KEY,
    403: WEAK_KEY,
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
        self._address = address_in(url)
        self._server = server
        self._client = _client(server, url)

    async def __aexit__(self, *raised: object) -> None:
        await self._client.aclose()

    async def collections(self) -> set[str]:
        """The names of all collections that the node knows; aliases are not among them."""
        result = await self._ask("listing collections", "GET", "/collections")
        return {collection["name"] for collection in result["collections"]}

    async def create(self, collection: str) -> CollectionSnapshot:
        action = f"creating a snapshot of {collection}"
        result = await self._ask(action, "POST", _path(collection, "snapshots"), slow=True)
        return msgspec.convert(result, CollectionSnapshot)

    async def download(
        self, collection: str, snapshot: CollectionSnapshot, to: Path, on_bytes: OnBytes
    ) -> str:
        """Download into a new file; returns its SHA-256, which must be the node's checksum."""
        digest, done = hashlib.sha256(), 0
        path = _path(collection, "snapshots", snapshot.name)
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
        path = _path(collection, "snapshots", snapshot.name)
        await self._ask("deleting a snapshot", "DELETE", path, slow=True)

    async def upload(self, collection: str, file: Path, sha256: str, on_bytes: OnBytes) -> None:
        """Replace the node's part of a collection by that of a snapshot."""
        path = _path(collection, "snapshots", "upload")
        parameters = {"priority": "snapshot", "wait": "true", "checksum": sha256}
        with _WatchedFile(file, on_bytes) as content:
            form = {"snapshot": (file.name, content, _BINARY)}
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
        result = await self._ask(action, "GET", _path(collection, "cluster"))
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
        limits = httpx.Timeout(_SLOW_S if slow else limit_s, connect=self._server.timeout_s)
        try:
            async with self._client.stream(method, path, timeout=limits, **content) as reply:
                if reply.is_error:
                    words = _WORDS.get(
                        reply.status_code, f"fails with HTTP status {reply.status_code}"
                    )
                    does = words.format(key=key_of(self._server))
                    raise self._error(does, action, _reason(await reply.aread()))
                yield reply
        except httpx.HTTPError as error:
            raise self._lost(error, action) from error

    def _lost(self, error: httpx.HTTPError, action: str) -> VectorIndexError:
        import httpx

        if isinstance(error, httpx.TimeoutException):
            does = "did not answer in time; look at its load, or raise index.qdrant.timeout_s"
        elif "certificate" in str(error).lower() or "ssl" in str(error).lower():
            does = TLS_FAILS
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


class _WatchedFile(io.FileIO):
    """A file that reports how far it was read."""

    def __init__(self, path: Path, on_bytes: OnBytes) -> None:
        super().__init__(path)
        self._on_bytes = on_bytes

    def read(self, size: int | None = -1, /) -> Any:
        content = super().read(size)
        self._on_bytes(self.tell())
        return content


def _client(server: QdrantServer, url: str) -> httpx.AsyncClient:
    try:
        import httpx
    except ImportError as error:
        raise missing_extra() from error
    headers = {} if server.api_key is None else {"api-key": server.api_key}
    try:
        tls = ssl.create_default_context(cafile=server.ca_file)
    except OSError as error:  # also what OpenSSL raises for content that is no certificate
        raise unreadable_ca_file(server, error) from error
    # Nodes are addressed directly: a proxy of the environment would not know them.
    return httpx.AsyncClient(base_url=url, headers=headers, verify=tls, trust_env=False)


def _path(*parts: str) -> str:
    return "/collections/" + "/".join(quote(part, safe="") for part in parts)


def _reason(body: bytes) -> str:
    """The reason that Qdrant gives, if it is Qdrant that answered."""
    try:
        return str(msgspec.json.decode(body)["status"]["error"])
    except (msgspec.MsgspecError, KeyError, TypeError):
        return ""
