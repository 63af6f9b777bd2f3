"""A running reader answers as a fresh process does, however its index was replaced meanwhile.

What replaces it here has points of the same times and run numbers and of other outcomes, so only
the version tokens of the tables tell both apart.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from llm_trader.backup.cluster import QdrantNodes
from llm_trader.backup.create import create_backup
from llm_trader.backup.manifest import Places
from llm_trader.backup.restore import restore_backup
from llm_trader.errors import VectorIndexError
from llm_trader.index import folders
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.migration import copy_points
from llm_trader.index.points import PointTable
from llm_trader.index.protocol import Collection, VectorIndex
from llm_trader.index.qdrant.backend import QdrantIndex
from llm_trader.index.qdrant.config import QdrantServer
from llm_trader.index.qdrant.versions import build_beside, prune, swap
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.timeframe import DAY_MS
from tests.index.builders import ALWAYS, SYMBOL, at
from tests.index.qdrant_places import drop, place_at, stub
from tests.retrieval.builders import COLLECTION, SPACE, comparable, outcomes_at, past, state_of

SLOTS = 600
AS_OF_MS = int(at([SLOTS])[0]) + DAY_MS
SPEC = SearchSpec(min_similarity=0.0, include_regime_filters=False)
RUN = ("tests", "bybit", "2026-01-01T00:00:00Z")


def points(pull: float) -> PointTable:
    """Points whose outcomes lie higher the greater `pull` is; all else stays the same."""
    table = past(range(SLOTS))
    values = table.values.copy()
    outcomes = outcomes_at(SLOTS, pull=pull)
    values[-len(outcomes) :] = outcomes
    return replace(table, values=values)


OLD, NEW = points(0.0), points(1.5)


class Site(Protocol):
    """A place that an index lives at, and what an operator does to it."""

    def read(self) -> AbstractAsyncContextManager[VectorIndex]: ...

    def read_afresh(self) -> AbstractAsyncContextManager[VectorIndex]:
        """As a process does that begins now."""
        ...

    def build(self) -> AbstractAsyncContextManager[VectorIndex]:
        """A version beside the live one; `go_live` swaps it in."""
        ...

    async def go_live(self) -> None: ...

    def make(self) -> AbstractAsyncContextManager[VectorIndex]:
        """A new index at the place itself, after `remove`."""
        ...

    async def remove(self) -> None: ...

    async def back_up(self, backups: Path) -> None: ...

    async def restore(self, backups: Path) -> None: ...


@dataclass
class Folder:
    path: Path

    @asynccontextmanager
    async def read(self) -> AsyncIterator[VectorIndex]:
        with EmbeddedIndex.open(self.path) as index:
            yield index

    @asynccontextmanager
    async def read_afresh(self) -> AsyncIterator[VectorIndex]:
        """A copy, because LMDB opens a folder only once per process."""
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(self.path / "data.mdb", folder)
            with EmbeddedIndex.open(Path(folder)) as index:
                yield index

    @asynccontextmanager
    async def build(self) -> AsyncIterator[VectorIndex]:
        with EmbeddedIndex.create_or_open(folders.next_folder(self.path), COLLECTION) as index:
            yield index

    async def go_live(self) -> None:
        folders.swap_in(self.path)

    @asynccontextmanager
    async def make(self) -> AsyncIterator[VectorIndex]:
        """Made elsewhere and moved here, for the same reason."""
        elsewhere = self.path.with_name("elsewhere")
        if self.path.exists():
            self.path.rename(elsewhere)
        with EmbeddedIndex.create_or_open(elsewhere, COLLECTION) as index:
            yield index
        elsewhere.rename(self.path)

    async def remove(self) -> None:
        self.path.rename(self.path.with_name("moved-away"))

    async def back_up(self, backups: Path) -> None:
        sources = Places(index=self.path)
        await create_backup(backups, "backup", sources, created_at="2026-03-20T12:00:00Z")

    async def restore(self, backups: Path) -> None:
        await self.remove()
        await restore_backup(backups / "backup", Places(index=self.path))


@dataclass
class Server:
    server: QdrantServer
    built: str = ""

    @asynccontextmanager
    async def read(self) -> AsyncIterator[VectorIndex]:
        async with await QdrantIndex.open(self.server) as index:
            yield index

    def read_afresh(self) -> AbstractAsyncContextManager[VectorIndex]:
        return self.read()

    @asynccontextmanager
    async def build(self) -> AsyncIterator[VectorIndex]:
        async with await build_beside(self.server, COLLECTION) as index:
            self.built = index.name
            yield index

    async def go_live(self) -> None:
        await swap(self.server, self.built)
        await prune(self.server)

    @asynccontextmanager
    async def make(self) -> AsyncIterator[VectorIndex]:
        async with await QdrantIndex.create_or_open(self.server, COLLECTION) as index:
            yield index

    async def remove(self) -> None:
        await drop(self.server)

    async def back_up(self, backups: Path) -> None:
        sources = Places(qdrant=QdrantNodes(self.server))
        await create_backup(backups, "backup", sources, created_at="2026-03-20T12:00:00Z")

    async def restore(self, backups: Path) -> None:
        targets = Places(qdrant=QdrantNodes(self.server))
        await restore_backup(backups / "backup", targets, swap=True)


async def fill(index: VectorIndex, table: PointTable) -> None:
    await index.begin_run(*RUN)
    await index.upsert(table)


async def rebuild(site: Site, folder: Path) -> None:
    async with site.build() as index:
        await fill(index, NEW)
    await site.go_live()


async def migrate(site: Site, folder: Path) -> None:
    with EmbeddedIndex.create_or_open(folder / "source", COLLECTION) as source:
        await fill(source, NEW)
        await site.remove()
        async with site.make() as target:
            await copy_points(source, target, [], 200)


async def restore(site: Site, folder: Path) -> None:
    """The backup is of points that were written over since."""
    await site.restore(folder / "backups")


def site_of(where: str, tmp_path: Path) -> Site:
    return Folder(tmp_path / "index") if where == "embedded" else Server(place_at(stub()))


async def answer(retriever: Retriever) -> bytes:
    query = state_of(OLD, SLOTS // 2, AS_OF_MS)
    return comparable(await retriever.query(query, AS_OF_MS, SPEC))


async def answer_of_a_fresh_process(site: Site) -> bytes:
    async with site.read_afresh() as index:
        return await answer(Retriever(index, SPACE))


Replacement = Callable[[Any, Path], Awaitable[None]]


@pytest.mark.parametrize(
    ("where", "replacement"),
    [
        *(("embedded", how) for how in (rebuild, migrate, restore)),
        *(("qdrant", rebuild), pytest.param("qdrant", migrate, marks=pytest.mark.soak)),
        pytest.param("qdrant", restore, marks=pytest.mark.soak),
    ],
)
async def test_a_running_retriever_answers_as_a_fresh_process_does(
    where: str, replacement: Replacement, tmp_path: Path
) -> None:
    site = site_of(where, tmp_path)
    async with site.make() as index:
        await fill(index, NEW if replacement is restore else OLD)
    if replacement is restore:
        await site.back_up(tmp_path / "backups")
        async with site.make() as index:
            await index.upsert(OLD)
    async with site.read() as index:
        running = Retriever(index, SPACE)
        before = await answer(running)
        assert before == await answer_of_a_fresh_process(site)
        await replacement(site, tmp_path)
        await asyncio.sleep(1.05)  # a folder is looked at once a second
        after = await answer(running)
        assert after == await answer_of_a_fresh_process(site)
        assert after != before
        assert (await index.scan(SYMBOL, ALWAYS)).values.tolist() == NEW.values.tolist()


async def make_folder(path: Path, content: Collection) -> None:
    with EmbeddedIndex.create_or_open(path, content) as index:
        await fill(index, OLD)


async def test_a_folder_that_vanished_is_an_error_with_the_remedy_until_it_is_back(
    tmp_path: Path,
) -> None:
    path, away = tmp_path / "index", tmp_path / "away"
    await make_folder(path, COLLECTION)
    with EmbeddedIndex.open(path) as index:
        path.rename(away)
        await asyncio.sleep(1.05)
        for call in (index.scan(SYMBOL, ALWAYS), index.info(), index.timestamps(SYMBOL)):
            with pytest.raises(VectorIndexError, match=r"was removed .* put it back, or "):
                await call
        away.rename(path)
        assert len(await index.scan(SYMBOL, ALWAYS)) == len(OLD)


async def test_a_folder_rebuilt_with_other_features_is_neither_read_nor_written(
    tmp_path: Path,
) -> None:
    path, other = tmp_path / "index", tmp_path / "other"
    await make_folder(path, COLLECTION)
    await make_folder(other, msgspec.structs.replace(COLLECTION, state_space_id="another"))
    refusal = r"rebuilt with other features \(state_space_id is another, not .*restart the server"
    with EmbeddedIndex.create_or_open(path, COLLECTION) as index:
        path.rename(tmp_path / "away")
        other.rename(path)
        with pytest.raises(VectorIndexError, match=refusal):
            await index.upsert(NEW)
        for call in (index.scan(SYMBOL, ALWAYS), index.info()):
            with pytest.raises(VectorIndexError, match=refusal):
                await call
