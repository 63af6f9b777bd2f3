"""The versions of an index: the live one, one being built beside it, and older ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from llm_trader.app.blocking import blocking
from llm_trader.app.indexes import (
    backend_of,
    collection_of,
    index_to_read,
    qdrant_server,
    refuse_another_exchange,
    refuse_one_folder_for_both,
)
from llm_trader.app.ingestion import BUILD_ID, plan_of, spaces_of
from llm_trader.app.text_vectors import wants_texts
from llm_trader.errors import ConfigurationError, VectorIndexError
from llm_trader.index import folders
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.ingestion import IngestReport, ingest
from llm_trader.index.protocol import Collection, IndexInfo, SymbolPoints, VectorIndex
from llm_trader.market.store import MarketStore
from llm_trader.progress import Progress
from llm_trader.settings.tree import Settings
from llm_trader.timeframe import Millis, iso8601


class IndexState(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of an index, and its versions."""

    info: IndexInfo
    versions: list[Any]


class Rebuild(msgspec.Struct, frozen=True, kw_only=True):
    """`live` replaced the version `before`, which stays until it is pruned."""

    reports: list[IngestReport]
    live: str
    before: str | None


@blocking
async def index_state(settings: Settings, environ: Mapping[str, str]) -> IndexState:
    async with index_to_read(settings, environ) as index:
        info = await index.info()
    return IndexState(info=info, versions=await _versions(settings, environ))


def versions_to_prune(
    settings: Settings, environ: Mapping[str, str], *, also_building: bool
) -> list[str]:
    """The names of the versions that `prune_index` would delete."""
    versions = index_state(settings, environ).versions
    return [
        version.name
        for version in versions
        if not version.live and (also_building or not version.building)
    ]


def prune_index(
    settings: Settings, environ: Mapping[str, str], *, also_building: bool = False
) -> list[str]:
    """Delete old versions, and on request those being built; returns their names."""
    if backend_of(settings) == "embedded":
        return folders.prune(settings.index.path, also_building=also_building)
    from llm_trader.index.qdrant.versions import prune

    return asyncio.run(prune(qdrant_server(settings, environ), also_building=also_building))


@blocking
async def rebuild_index(
    settings: Settings, environ: Mapping[str, str], now_ms: Millis, progress: Progress
) -> Rebuild:
    """Build all points of the live index again in a new version, then swap the versions.

    An interrupted rebuild resumes at the next call. Raises `VectorIndexError` instead of swapping
    if the new version lacks a symbol or its newest state.
    """
    refuse_one_folder_for_both(settings)
    if backend_of(settings) == "embedded":
        folders.take_back(settings.index.path)

    with MarketStore.open(settings.market.store) as store:
        live_points = await _points_to_rebuild(settings, environ, store)
        spaces = spaces_of(settings, store, [points.symbol for points in live_points])
        collection = collection_of(spaces.state, store.exchange, spaces.text)

        async def rebuild_symbol(index: VectorIndex, points: SymbolPoints) -> IngestReport:
            first_ms, last_ms = points.first_timestamp_ms, points.last_timestamp_ms
            (report,) = await ingest(
                store,
                index,
                spaces,
                [points.symbol],
                plan_of(settings, first_ms, last_ms),
                build_id=BUILD_ID,
                started_at=iso8601(now_ms),
                progress=progress,
            )
            return report

        async with _version_beside(settings, environ, collection) as (index, name):
            reports = [await rebuild_symbol(index, points) for points in live_points]
            # The live index may have grown meanwhile.
            async with index_to_read(settings, environ) as live:
                await _refuse_fewer_points(index, (await live.info()).symbols)
        return await _swap(settings, environ, reports, name)


async def _points_to_rebuild(
    settings: Settings, environ: Mapping[str, str], store: MarketStore
) -> list[SymbolPoints]:
    async with index_to_read(settings, environ) as live:
        refuse_another_exchange(store, live)
        if live.collection.text_space_id is not None and not wants_texts(settings):
            raise ConfigurationError(
                f"the index at {live.location} has text vectors; rebuild it with --text, "
                "or ingest without them into a new index"
            )
        return (await live.info()).symbols


async def _versions(settings: Settings, environ: Mapping[str, str]) -> list[Any]:
    if backend_of(settings) == "embedded":
        return list(folders.versions(settings.index.path))
    from llm_trader.index.qdrant.versions import versions

    return list(await versions(qdrant_server(settings, environ)))


@asynccontextmanager
async def _version_beside(
    settings: Settings, environ: Mapping[str, str], collection: Collection
) -> AsyncIterator[tuple[VectorIndex, str]]:
    """The new version, which nobody searches yet, and its name; an unfinished one is continued."""
    if backend_of(settings) == "embedded":
        folder = folders.next_folder(settings.index.path)
        _refuse_other_build(folder, collection)
        with EmbeddedIndex.create_or_open(folder, collection) as local:
            yield local, str(settings.index.path)
        return
    from llm_trader.index.qdrant.versions import build_beside

    async with await build_beside(qdrant_server(settings, environ), collection) as remote:
        yield remote, remote.name


def _refuse_other_build(folder: Path, collection: Collection) -> None:
    with suppress(VectorIndexError), EmbeddedIndex.open(folder) as unfinished:
        if differences := unfinished.collection.differences(collection):
            raise ConfigurationError(
                f"the unfinished version at {folder} holds other points: "
                f"{'; '.join(differences)}; delete it with: llm-trader index prune --also-building"
            )


async def _refuse_fewer_points(index: VectorIndex, live_points: list[SymbolPoints]) -> None:
    rebuilt = {points.symbol: points for points in (await index.info()).symbols}
    for live in live_points:
        if live.symbol not in rebuilt:
            lacking = f"no state of {live.symbol}"
        elif rebuilt[live.symbol].last_timestamp_ms < live.last_timestamp_ms:
            lacking = f"not the newest states of {live.symbol}"
        else:
            continue
        raise VectorIndexError(
            f"the rebuilt index has {lacking}, so the live one stays; if they were ingested during "
            "the rebuild, rebuild again; otherwise check that the market store reaches as far with "
            "llm-trader data info"
        )


async def _swap(
    settings: Settings, environ: Mapping[str, str], reports: list[IngestReport], name: str
) -> Rebuild:
    if backend_of(settings) == "embedded":
        old = folders.swap_in(settings.index.path)
        return Rebuild(reports=reports, live=name, before=str(old))
    from llm_trader.index.qdrant.versions import swap, versions

    server = qdrant_server(settings, environ)
    old_name = next((version.name for version in await versions(server) if version.live), None)
    await swap(server, name)
    return Rebuild(reports=reports, live=name, before=old_name)
