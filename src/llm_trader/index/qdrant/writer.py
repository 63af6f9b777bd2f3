"""Writes to one collection: runs, transactions, and giving way to a later ingestion."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from operator import methodcaller
from typing import Any, Final

import msgspec

from llm_trader.arrays import Times
from llm_trader.errors import StoreLockedError, VectorIndexError
from llm_trader.index.points import PointTable, point_id
from llm_trader.index.protocol import IngestionRun
from llm_trader.index.qdrant import catalog, layout, requests
from llm_trader.index.qdrant.layout import Head
from llm_trader.index.qdrant.reader import PageContent, Reader, together
from llm_trader.market.series_changes import DataMark

# Transactions of a run are numbered within 24 bits: 16 million batches.
_RUN_BITS: Final = 24
_BYTES_A_REQUEST: Final = 3_000_000  # proxies often allow 4 MB
_IDS_A_REQUEST: Final = 1000
_BYTES_OF_PAYLOAD: Final = 3_000  # of one point: forty named numbers and the packed row
# A process writes the head at once after its run; a second without one means that it was killed.
_LOOKS: Final = 10
_PAUSE_S: Final = 0.1


class Writer:
    """The only running ingestion, until another one begins a run.

    `aliased`: the collection is the one behind the alias, and losing the alias ends the ingestion.
    """

    def __init__(self, reader: Reader, head: Head, *, aliased: bool) -> None:
        self._reader = reader
        self._connection = reader.connection
        self._name = reader.name
        self._aliased = aliased
        self._build_id: str | None = None
        self._writing = asyncio.Lock()
        self.head = head

    async def begin_run(self, build_id: str, exchange: str | None, started_at: str) -> int:
        async with self._writing:
            # The token tells this process's registration from that of another with equal fields.
            token, number = uuid.uuid4().hex, (await self._reader.head()).run + 1
            while True:
                run = IngestionRun(number, build_id, exchange, started_at)
                registered, owner = await self._register(run, token)
                if owner == token or (registered == run and await self._is_abandoned(number)):
                    break
                number += 1  # another ingestion was faster
            before = await self._reader.head()
            written = max(before.written, number << _RUN_BITS)
            # A removal that was killed may have left points in the caches of readers.
            removed = written if before.removed > before.written else before.removed
            self.head = Head(owner, number, written, removed)
            await catalog.write_head(self._connection, self._name, self.head)
            self._build_id = build_id
        return number

    async def upsert(self, points: PointTable) -> int:
        """Write points under a transaction number of their own; returns the number of new ones."""
        async with self._writing:
            version = self._reader.collection.feature_version
            ids = [point_id(points.symbol, t, version) for t in points.timestamp_ms.tolist()]
            stored = await self._stored(ids)
            written = self.head.written + 1
            parts = self._parts(points)
            await together(self._send(ids[part], points.take(part), written) for part in parts)
            self.head = msgspec.structs.replace(self.head, written=written)
            # The head comes after the points, so that readers never look for points that are not
            # there.
            await catalog.write_head(self._connection, self._name, self.head)
        return len(ids) - len(stored)

    async def remove(self, symbol: str, timestamp_ms: Times) -> int:
        """Delete the points at these times; returns how many there were."""
        async with self._writing:
            version = self._reader.collection.feature_version
            ids = [point_id(symbol, t, version) for t in timestamp_ms.tolist()]
            stored = sorted(await self._stored(ids))
            if not stored:
                return 0
            written = self.head.written + 1
            # Both before and after: the next run completes a removal that was killed in between.
            self.head = msgspec.structs.replace(self.head, removed=written)
            await catalog.write_head(self._connection, self._name, self.head)
            for start in range(0, len(stored), _IDS_A_REQUEST):
                part = requests.ids_of(stored[start : start + _IDS_A_REQUEST])
                delete = methodcaller("delete", self._name, part, wait=True)
                await self._connection.call("removing points", delete)
            self.head = msgspec.structs.replace(self.head, written=written)
            await catalog.write_head(self._connection, self._name, self.head)
        return len(stored)

    async def set_data_mark(self, symbol: str, mark: DataMark) -> None:
        from qdrant_client import models

        id_, content = layout.mark_id(symbol), layout.mark_payload(mark)
        async with self._writing:
            await self._stored([])
            await self._connection.call(
                "writing a data mark",
                lambda client: client.upsert(
                    self._name,
                    [models.PointStruct(id=id_, vector={}, payload=content)],
                    wait=True,
                ),
            )

    async def _register(self, run: IngestionRun, token: str) -> tuple[IngestionRun, str]:
        """Register a run unless another one has its number; returns the run that has it."""
        from qdrant_client import models

        id_, content = layout.run_id(run.run), layout.run_payload(run, token)
        await self._connection.call(
            "registering a run",
            lambda client: client.upsert(
                self._name,
                [models.PointStruct(id=id_, vector={}, payload=content)],
                wait=True,
                update_mode=models.UpdateMode.INSERT_ONLY,
            ),
        )
        registered = await self._reader.runs(run.run, run.run)
        if not registered:
            raise self._reader.malformed(f"no run {run.run}")
        return registered[0]

    async def _is_abandoned(self, number: int) -> bool:
        """Whether the process that registered a run was killed before it wrote the head."""
        for _ in range(_LOOKS):
            if (await self._reader.head()).run >= number:
                return False
            await asyncio.sleep(_PAUSE_S)
        return True

    async def _stored(self, ids: Sequence[str]) -> set[str]:
        """The ids of stored points; raises `StoreLockedError` if a later ingestion has begun."""
        live = await catalog.resolve(self._connection) if self._aliased else self._name
        if live != self._name:
            raise StoreLockedError(
                f"{self._connection.server.collection} at {self._connection.server.address} leads "
                f"to {live} by now, not to {self._name}; ingest again"
            )
        later = layout.run_id(self.head.run + 1)
        content = PageContent(lambda points: {str(point.id) for point in points}, fields=False)
        pages = await self._reader.by_id("looking for points", [later, *ids], content)
        stored: set[str] = set().union(*pages)
        if later in stored:
            raise StoreLockedError(
                f"another ingestion (run {self.head.run + 1}) took over {self._name} at "
                f"{self._connection.server.address}; let it finish, then ingest again: nothing is "
                "lost or doubled"
            )
        return stored

    def _parts(self, points: PointTable) -> list[slice]:
        floats = sum(self._reader.collection.dimensions.values())
        size = max(1, _BYTES_A_REQUEST // (4 * floats + _BYTES_OF_PAYLOAD))
        return [slice(start, start + size) for start in range(0, len(points), size)]

    async def _send(self, ids: Sequence[str], points: PointTable, written: int) -> None:
        contents = layout.payloads(points, self._reader.collection, self._build_id, written)
        structs: list[Any] = await asyncio.to_thread(
            requests.point_structs, ids, points.vectors, contents
        )
        result = await self._connection.call(
            "writing points", lambda client: client.upsert(self._name, structs, wait=True)
        )
        if result.status != "completed":
            raise VectorIndexError(
                f"Qdrant at {self._connection.server.address} did not finish writing points: "
                f"{result.status}"
            )
