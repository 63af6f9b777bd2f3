"""The collection of a Qdrant server: snapshots of all its nodes, and back.

A collection that was restored gets a name of its own and is asked the recorded questions under
it; only then does the alias lead to it. What is live is never overwritten.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec import structs

from llm_trader.backup import contents
from llm_trader.backup.contents import Findings, Recording
from llm_trader.backup.files import digest
from llm_trader.backup.manifest import QDRANT, NodePart, QdrantPart
from llm_trader.checks.agreement import RecordedAnswer
from llm_trader.errors import ConfigurationError, LlmTraderError, VectorIndexError
from llm_trader.index.qdrant import catalog, versions
from llm_trader.index.qdrant.backend import QdrantIndex
from llm_trader.index.qdrant.collection_snapshots import NodeSnapshots
from llm_trader.index.qdrant.config import QdrantServer, address_in, shown
from llm_trader.index.qdrant.connection import Connection
from llm_trader.index.qdrant.paging import CollectionPages
from llm_trader.index.qdrant.reader import Reader
from llm_trader.progress import Progress

_TRIES: Final = 3
_OPTIMIZED: Final = ("green", "grey")  # grey has work left that waits for the next write
_OPTIMIZED_IN_S: Final = 3600.0
_PAUSE_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class QdrantNodes:
    """A Qdrant server or cluster: how it is asked, and the REST addresses of its nodes.

    No addresses means the one of the place itself.
    """

    server: QdrantServer
    urls: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return self.urls or (self.server.url,)


async def copy_collection(
    nodes: QdrantNodes, folder: Path, progress: Progress
) -> tuple[QdrantPart, Recording]:
    """Snapshots of what the alias leads to, of one moment of all nodes.

    Where something was written meanwhile they are made again, a few times.
    """
    async with await QdrantIndex.open(nodes.server) as index:
        for _ in range(_TRIES):
            version, before = index.name, await _written(nodes.server, index)
            part = await contents.index_part(index, nodes.server.shown_url)
            recording = await contents.recorded_answers(index)
            made = [
                await _copy_node(nodes, number, version, folder, progress)
                for number in range(len(nodes.all))
            ]
            if (index.name, await _written(nodes.server, index)) == (version, before):
                return QdrantPart(
                    alias=nodes.server.collection, version=version, index=part, nodes=made
                ), recording
            for node in made:
                (folder.parent / node.file).unlink()
    raise VectorIndexError(
        f"{nodes.server.collection} at {nodes.server.shown_url} was written to during each of "
        f"{_TRIES} tries; make the backup while no ingestion is at work"
    )


async def _written(server: QdrantServer, index: QdrantIndex) -> object:
    """Equal twice if nothing was written in between."""
    async with Connection(server) as connection:
        name = await catalog.resolve(connection)
        if name is None:
            raise VectorIndexError(
                f"{server.collection} at {server.shown_url} was deleted meanwhile"
            )
        reader = Reader(CollectionPages(connection, name), index.collection)
        return name, await reader.head(), await reader.counts()


async def _copy_node(
    nodes: QdrantNodes, number: int, version: str, folder: Path, progress: Progress
) -> NodePart:
    url = nodes.all[number]
    address = address_in(url)
    node_folder = folder / f"{number + 1}-{re.sub('[^A-Za-z0-9.-]+', '-', address)}"
    node_folder.mkdir(parents=True, exist_ok=True)
    async with NodeSnapshots(nodes.server, url) as node:
        progress(f"snapshot of {address}", 0, 1)
        snapshot = await node.create(version)
        try:
            file = node_folder / f"{version}.snapshot"
            told = _told(progress, f"snapshot of {address}", snapshot.size)
            await node.download(version, snapshot, file, told)
        finally:
            await node.delete(version, snapshot)
    return NodePart(shown(url), snapshot.name, file.relative_to(folder.parent).as_posix())


class RestoredCollection:
    """A collection on its way back from a backup, under a name of its own."""

    def __init__(self, nodes: QdrantNodes, part: QdrantPart) -> None:
        self._nodes, self._part = nodes, part
        self.name = ""

    async def refuse_live(self, *, swap: bool) -> None:
        """Raises `ConfigurationError` where the alias leads somewhere and must not be swapped,
        and where the nodes are not as many as were backed up."""
        server, wanted = self._nodes.server, len(self._part.nodes)
        if len(self._nodes.all) != wanted:
            raise ConfigurationError(
                f"the backup holds the snapshots of {wanted} nodes, and {len(self._nodes.all)} "
                "are named; list all nodes in index.qdrant.node_urls, as many as there were"
            )
        async with Connection(server) as connection:
            live = await catalog.resolve(connection)
        if live == server.collection:
            raise ConfigurationError(
                f"{live} at {server.shown_url} is a collection and no alias, and a restore "
                "overwrites nothing; name another with index.qdrant.collection"
            )
        if live is not None and not swap:
            raise ConfigurationError(
                f"{server.collection} at {server.shown_url} leads to {live} already; with "
                "--swap it is led to the restored collection, and the old one is kept"
            )

    async def upload(self, folder: Path, progress: Progress) -> None:
        """Each node gets its snapshot; returns once all shards can be searched."""
        async with NodeSnapshots(self._nodes.server, self._nodes.all[0]) as first:
            self.name = self._free_name(await first.collections())
        for url, part in zip(self._nodes.all, self._part.nodes, strict=True):
            file = folder / part.file
            told = _told(progress, f"restoring {QDRANT}", file.stat().st_size)
            sha256 = await digest(file, lambda done: None)
            async with NodeSnapshots(self._nodes.server, url) as node:
                await node.upload(self.name, file, sha256, told)
        for url in self._nodes.all:
            async with NodeSnapshots(self._nodes.server, url) as node:
                await node.until_active(self.name)
        await self._until_optimized()
        await self._make_its_own()

    async def look(self, answers: Sequence[RecordedAnswer]) -> Findings:
        """Whether it holds what it should, and answers as recorded."""
        async with await self._open() as index:
            return await contents.look_at_open_index(index, self._part.index, answers)

    async def discard(self) -> None:
        """Delete what has been uploaded so far; what the server refuses stays there."""
        if self.name:
            with suppress(LlmTraderError):
                async with Connection(self._nodes.server) as connection:
                    await catalog.delete(connection, self.name)

    async def go_live(self) -> str:
        """Let the alias lead here; the collection's own name."""
        await versions.swap(self._nodes.server, self.name)
        return self.name

    def _free_name(self, taken: set[str]) -> str:
        kind = self._part.version.removeprefix(self._part.alias)
        original = self._nodes.server.collection + re.sub(r"_restored_\d+$", "", kind)
        number = 1
        while (name := f"{original}_restored_{number}") in taken:
            number += 1
        return name

    async def _make_its_own(self) -> None:
        """The collection says which index it is a version of, maybe of another now.

        Its head gets a token of its own: by that, readers notice that the alias was led here.
        """
        async with Connection(self._nodes.server) as connection:
            said = await catalog.open_described(connection, self.name)
            says = structs.replace(said, alias=self._nodes.server.collection)
            await catalog.write_description(connection, self.name, says)
            head = await Reader(CollectionPages(connection, self.name), said.collection).head()
            own = structs.replace(head, token=uuid.uuid4().hex)
            await catalog.write_head(connection, self.name, own)

    async def _until_optimized(self) -> None:
        """Wait until the server has nothing left to do for the collection; an hour at most."""
        server, status = self._nodes.server, ""
        try:
            async with asyncio.timeout(_OPTIMIZED_IN_S), Connection(server) as connection:
                while True:
                    info = await connection.call(
                        "waiting for the collection",
                        lambda client: client.get_collection(self.name),
                    )
                    status = str(info.status.value)
                    if status in _OPTIMIZED:
                        return
                    await asyncio.sleep(_PAUSE_S)
        except TimeoutError:
            raise VectorIndexError(
                f"{self.name} at {server.shown_url} is still {status}, not green; look at the "
                "server's log"
            ) from None

    async def _open(self) -> QdrantIndex:
        return await QdrantIndex.open(structs.replace(self._nodes.server, collection=self.name))


def _told(progress: Progress, what: str, total: int) -> Callable[[int], None]:
    return lambda done: progress(what, done, total)
