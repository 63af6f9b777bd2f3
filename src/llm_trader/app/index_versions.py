"""The versions of an index (live, being built, and older ones), and its copy in another backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from llm_trader.app import indexes
from llm_trader.app.indexes import Backend, backend_of, open_index, qdrant_server
from llm_trader.app.ingestion import BUILD_ID, intraday_timeframe, plan_of, spaces_of
from llm_trader.app.job import Job, blocking
from llm_trader.checks.agreement import AgreementReport, compare_answers
from llm_trader.checks.copy_verification import CopyProblem, verify_copy
from llm_trader.errors import (
    ConfigurationError,
    DamagedIndexError,
    InvalidInputError,
    OutdatedIndexError,
    VectorIndexError,
)
from llm_trader.index import folders
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.ingestion import IngestReport, ingest
from llm_trader.index.migration import CopyReport, copy_points
from llm_trader.index.protocol import Collection, IndexInfo, SymbolPoints, VectorIndex
from llm_trader.index.qdrant import versions as qdrant_versions
from llm_trader.market.store import MarketStore
from llm_trader.retrieval.retriever import Retriever
from llm_trader.settings.tree import Settings

# Some 6 MB with text vectors; ten times as many come near the message limit of a Qdrant server.
_POINTS_PER_BATCH: Final = 2000


class IndexState(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of an index, and its versions."""

    info: IndexInfo
    versions: Sequence[folders.FolderVersion | qdrant_versions.Version]


class Rebuild(msgspec.Struct, frozen=True, kw_only=True):
    """`live` replaced the version `before`, which stays until it is pruned."""

    reports: list[IngestReport]
    live: str
    before: str | None


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """The copied points, the differences, and the agreement of answers."""

    copied: list[CopyReport]
    problems: list[CopyProblem]
    agreement: AgreementReport

    @property
    def true_copy(self) -> bool:
        rounding = all(difference.of_rounding for difference in self.agreement.disagreements)
        return not self.problems and rounding


@blocking
async def index_state(settings: Settings, environ: Mapping[str, str]) -> IndexState:
    async with open_index(settings, environ) as index:
        info = await index.info()
    if backend_of(settings) == "embedded":
        return IndexState(info=info, versions=folders.versions(settings.index.path))
    server = qdrant_server(settings, environ)
    return IndexState(info=info, versions=await qdrant_versions.versions(server))


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
    server = qdrant_server(settings, environ)
    return asyncio.run(qdrant_versions.prune(server, also_building=also_building))


@blocking
async def rebuild_index(job: Job) -> Rebuild:
    """Build all points of the live index again in a new version, then swap the versions.

    If the live one is damaged, or another version of this program wrote it, build all that the
    market store has.
    An interrupted rebuild resumes at the next call. Raises `VectorIndexError` instead of swapping
    if the new version lacks a symbol or its newest state.
    """
    settings, environ = job.settings, job.environ
    indexes.refuse_one_folder_for_both(settings)
    if backend_of(settings) == "embedded":
        # A rebuild killed between its two renames left no live version to read.
        folders.take_back(settings.index.path)

    with MarketStore.open(settings.market.store) as store:
        live_points = await _points_to_rebuild(settings, environ, store)
        spaces = spaces_of(settings, store, [points.symbol for points in live_points])
        collection = indexes.collection_of(spaces, store.exchange)
        reports = []
        async with _version_beside(settings, environ, collection) as (index, name):
            for points in live_points:
                # A plan has one range of time, and each symbol has its own.
                reports += await ingest(
                    store,
                    index,
                    spaces,
                    [points.symbol],
                    plan_of(settings, points.first_timestamp_ms, points.last_timestamp_ms),
                    build_id=BUILD_ID,
                    now_ms=job.now_ms,
                    progress=job.progress,
                )
            # The live index may have grown meanwhile.
            with suppress(OutdatedIndexError, DamagedIndexError):
                async with open_index(settings, environ) as live:
                    await _refuse_fewer_points(index, (await live.info()).symbols)
        return await _swap(settings, environ, reports, name)


@blocking
async def migrate_index(
    job: Job, source: Backend, target: Backend, *, samples: int, seed: int
) -> Migration:
    """Copy all points; compare counts, times, contents and sampled answers."""
    if source == target:
        raise InvalidInputError(
            f"an index cannot be migrated from {source} to {target}; give two different backends"
        )
    settings, environ = job.settings, job.environ
    async with (
        open_index(settings, environ, source) as old,
        open_index(settings, environ, target, create=old.collection) as new,
    ):
        copied = await copy_points(old, new, [], _POINTS_PER_BATCH, job.progress)
        problems = await verify_copy(old, new, seed=seed)
        space = old.collection.state_space()
        async with indexes.query_texts(settings, environ, old.collection) as texts:
            reference, copy = (Retriever(index, space, texts) for index in (old, new))
            agreement = await compare_answers(reference, copy, samples, seed, job.progress)
    return Migration(copied=copied, problems=problems, agreement=agreement)


async def _points_to_rebuild(
    settings: Settings, environ: Mapping[str, str], store: MarketStore
) -> list[SymbolPoints]:
    """The symbols and ranges of time of the live index."""
    try:
        async with open_index(settings, environ) as live:
            indexes.refuse_another_exchange(store, live)
            if live.collection.text_space_id is not None and not indexes.wants_texts(settings):
                raise ConfigurationError(
                    f"the index at {live.location} has text vectors; rebuild it with --text, "
                    "or ingest without them into a new index"
                )
            return (await live.info()).symbols
    except (OutdatedIndexError, DamagedIndexError):
        return _all_of_the_store(settings, store)


def _all_of_the_store(settings: Settings, store: MarketStore) -> list[SymbolPoints]:
    """Every symbol over all its candles; how many points that makes is not known yet."""
    intraday = intraday_timeframe(settings, store, store.symbols())
    return [
        SymbolPoints(symbol, 0, stored[0], stored[1] + intraday.ms)
        for symbol in store.symbols()
        if (stored := store.first_and_last_ms(symbol, intraday))
    ]


@asynccontextmanager
async def _version_beside(
    settings: Settings, environ: Mapping[str, str], collection: Collection
) -> AsyncIterator[tuple[VectorIndex, str]]:
    """The new version, which nobody searches yet, and its name; an unfinished one is continued."""
    if backend_of(settings) == "embedded":
        folder = folders.next_folder(settings.index.path)
        _refuse_other_build(folder, collection)
        map_size_bytes = settings.index.map_size_bytes
        with EmbeddedIndex.create_or_open(
            folder, collection, map_size_bytes=map_size_bytes
        ) as local:
            # The swap gives it the live folder's name.
            yield local, str(settings.index.path)
        return
    server = qdrant_server(settings, environ)
    async with await qdrant_versions.build_beside(server, collection) as remote:
        yield remote, remote.name


def _refuse_other_build(folder: Path, collection: Collection) -> None:
    try:
        with EmbeddedIndex.open(folder) as unfinished:
            differences = unfinished.collection.differences(collection)
    except OutdatedIndexError:
        differences = ["another version of this program wrote them"]
    except DamagedIndexError:
        differences = ["they are damaged"]
    except VectorIndexError:  # mostly no rebuild is unfinished, and there is nothing to open
        differences = []
    if differences:
        raise ConfigurationError(
            f"the unfinished version at {folder} holds other points: {'; '.join(differences)}; "
            "delete it with: llm-trader index prune --also-building"
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
    server = qdrant_server(settings, environ)
    versions = await qdrant_versions.versions(server)
    old_name = next((version.name for version in versions if version.live), None)
    await qdrant_versions.swap(server, name)
    return Rebuild(reports=reports, live=name, before=old_name)
