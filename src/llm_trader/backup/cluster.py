"""The collection of a Qdrant server: copied as snapshots of all its nodes, and restored.

A restored collection gets a name of its own and is asked the recorded questions under it; only then
the alias is pointed at it. The live collection is never overwritten.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec import structs

from llm_trader.backup import contents
from llm_trader.backup.contents import Findings, Recording
from llm_trader.backup.files import OnBytes, digest
from llm_trader.backup.manifest import QDRANT, NodePart, QdrantPart
from llm_trader.checks.agreement import RecordedAnswer
from llm_trader.errors import ConfigurationError, LlmTraderError, VectorIndexError
from llm_trader.index.qdrant import catalog, versions
from llm_trader.index.qdrant.backend import QdrantIndex
from llm_trader.index.qdrant.collection_snapshots import NodeSnapshots
from llm_trader.index.qdrant.config import QdrantServer, address_in, shown
from llm_trader.index.qdrant.connection import Connection
from llm_trader.index.qdrant.reader import Reader
from llm_trader.progress import Progress

# Each try takes as long as the snapshots; an ingestion that outlasts three is better waited for.
_TRIES: Final = 3
_OPTIMIZED: Final = ("green", "grey")  # grey has work left that waits for the next write
_OPTIMIZED_IN_S: Final = 3600.0
_PAUSE_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class QdrantNodes:
    """A Qdrant server or cluster, and the REST addresses of its nodes.

    Without addresses it is the single node of the server itself.
    """

    server: QdrantServer
    urls: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return self.urls or (self.server.url,)


async def copy_collection(
    nodes: QdrantNodes, folder: Path, progress: Progress
) -> tuple[QdrantPart, Recording]:
    """Snapshots of the live collection, of one moment of all nodes.

    When something was written meanwhile they are made again, a few times.
    """
    async with await QdrantIndex.open(nodes.server) as index:
        for _ in range(_TRIES):
            version, state = index.name, await _state(nodes.server, index)
            part = await contents.index_part(index, nodes.server.shown_url)
            recording = await contents.recorded_answers(index)
            node_parts = [
                await _copy_node(nodes, number, version, folder, progress)
                for number in range(len(nodes.all))
            ]
            if (index.name, await _state(nodes.server, index)) == (version, state):
                return QdrantPart(
                    alias=nodes.server.collection, version=version, index=part, nodes=node_parts
                ), recording
            # Parts of two moments would answer as neither did, so no file of this try is kept.
            for node in node_parts:
                (folder.parent / node.file).unlink()
    raise VectorIndexError(
        f"{nodes.server.collection} at {nodes.server.shown_url} was written to during each of "
        f"{_TRIES} tries; make the backup while no ingestion is at work"
    )


async def _state(server: QdrantServer, index: QdrantIndex) -> object:
    """Two states are equal if nothing was written in between."""
    async with Connection(server) as connection:
        name = await catalog.require(connection)
        reader = Reader(connection, name, index.collection)
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
            on_bytes = _byte_progress(progress, f"snapshot of {address}", snapshot.size)
            await node.download(version, snapshot, file, on_bytes)
        finally:
            # A snapshot takes up the node's disk until it is deleted, also when the download
            # failed.
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
        server, node_count = self._nodes.server, len(self._part.nodes)
        if len(self._nodes.all) != node_count:
            raise ConfigurationError(
                f"the backup holds the snapshots of {node_count} nodes, and {len(self._nodes.all)} "
                "are named; list all nodes in index.qdrant.node_urls, as many as there were"
            )
        async with Connection(server) as connection:
            live = await catalog.resolve(connection)
        # Only an alias can be moved away from what it led to; a collection would have to be
        # deleted.
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
            on_bytes = _byte_progress(progress, f"restoring {QDRANT}", file.stat().st_size)
            # The node refuses the upload unless it received these very bytes.
            sha256 = await digest(file, lambda done: None)
            async with NodeSnapshots(self._nodes.server, url) as node:
                await node.upload(self.name, file, sha256, on_bytes)
        # After all uploads: a shard becomes active only once its copies on other nodes are there.
        for url in self._nodes.all:
            async with NodeSnapshots(self._nodes.server, url) as node:
                await node.until_active(self.name)
        await self._until_optimized()
        await self._claim_alias()

    async def check(self, answers: Sequence[RecordedAnswer]) -> Findings:
        """Whether it has the content it should have, and answers as recorded."""
        server = structs.replace(self._nodes.server, collection=self.name)
        async with await QdrantIndex.open(server) as index:
            return await contents.check_open_index(index, self._part.index, answers)

    async def discard(self) -> None:
        """Delete the collection; it stays there if the server refuses."""
        if self.name:
            with suppress(LlmTraderError):
                async with Connection(self._nodes.server) as connection:
                    await catalog.delete(connection, self.name)

    async def go_live(self) -> str:
        """Point the alias here; returns the collection's own name."""
        await versions.swap(self._nodes.server, self.name)
        return self.name

    def _free_name(self, taken: set[str]) -> str:
        kind = self._part.version.removeprefix(self._part.alias)
        original = self._nodes.server.collection + re.sub(r"_restored_\d+$", "", kind)
        number = 1
        while (name := f"{original}_restored_{number}") in taken:
            number += 1
        return name

    async def _claim_alias(self) -> None:
        """Describe the collection as a version of this index, which may be another one now.

        Its head gets a new token, by which readers notice that the alias points here.
        """
        async with Connection(self._nodes.server) as connection:
            description = await catalog.open_described(connection, self.name)
            collection = description.collection
            description = structs.replace(description, alias=self._nodes.server.collection)
            await catalog.write_description(connection, self.name, description)
            head = await Reader(connection, self.name, collection).head()
            head = structs.replace(head, token=uuid.uuid4().hex)
            await catalog.write_head(connection, self.name, head)

    async def _until_optimized(self) -> None:
        """Wait until the server has optimized the collection; an hour at most."""
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


def _byte_progress(progress: Progress, label: str, total: int) -> OnBytes:
    return lambda done: progress(label, done, total)
