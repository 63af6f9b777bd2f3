"""Moving an index to another backend, rebuilding it beside the live one, and looking after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from llm_trader.app.indexes import (
    Backend,
    backend_of,
    collection_of,
    index_to_read,
    index_to_write,
    qdrant_server,
    refuse_another_exchange,
    refuse_one_folder_for_both,
)
from llm_trader.app.ingestion import BUILD_ID, plan_of, spaces_of
from llm_trader.app.text_model import query_texts, wants_texts
from llm_trader.checks.agreement import AgreementReport, compare_answers
from llm_trader.errors import ConfigurationError, InvalidInputError, VectorIndexError
from llm_trader.index import folders
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.ingestion import IngestReport, Spaces, ingest
from llm_trader.index.migration import CopyProblem, CopyReport, copy_points, verify_copy
from llm_trader.index.protocol import Collection, IndexInfo, SymbolPoints, VectorIndex
from llm_trader.market.store import MarketStore
from llm_trader.progress import Progress
from llm_trader.retrieval.retriever import Retriever
from llm_trader.settings.tree import Settings
from llm_trader.timeframe import Millis, iso8601

_COPY_BATCH = 2000


class IndexState(msgspec.Struct, frozen=True, kw_only=True):
    """What an index holds, and its versions: the live one, one being built, older ones."""

    info: IndexInfo
    versions: list[Any]


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """What was copied, what is other than it was, and whether both answer alike."""

    copied: list[CopyReport]
    problems: list[CopyProblem]
    agreement: AgreementReport

    @property
    def true_copy(self) -> bool:
        rounding = all(of.of_rounding for of in self.agreement.disagreements)
        return not self.problems and rounding


class Rebuild(msgspec.Struct, frozen=True, kw_only=True):
    """`live` is searched now, `before` until then; it stays until it is pruned."""

    reports: list[IngestReport]
    live: str
    before: str | None


def index_state(settings: Settings, environ: Mapping[str, str]) -> IndexState:
    async def main() -> IndexState:
        async with index_to_read(settings, environ) as index:
            info = await index.info()
        return IndexState(info=info, versions=await _versions(settings, environ))

    return asyncio.run(main())


def migrate_index(
    settings: Settings,
    environ: Mapping[str, str],
    source: Backend,
    target: Backend,
    *,
    samples: int,
    seed: int,
    progress: Progress,
    asked: Callable[[], None],
) -> Migration:
    """Copy all points, and prove the copy by counts, times, contents and sampled answers."""
    if source == target:
        raise InvalidInputError(f"an index cannot be migrated from {source} to {target}")

    async def main() -> Migration:
        async with (
            index_to_read(settings, environ, source) as old,
            index_to_write(settings, environ, old.collection, target) as new,
        ):
            copied = await copy_points(old, new, [], _COPY_BATCH, progress)
            problems = await verify_copy(old, new, seed=seed)
            space = old.collection.state_space()
            async with query_texts(settings, environ, old.collection) as texts:
                one, other = (Retriever(index, space, texts) for index in (old, new))
                agreement = await compare_answers(one, other, samples, seed, asked)
        return Migration(copied=copied, problems=problems, agreement=agreement)

    return asyncio.run(main())


def rebuild_index(
    settings: Settings, environ: Mapping[str, str], now_ms: Millis, progress: Progress
) -> Rebuild:
    """Make every point of the live index anew beside it, by this version, then swap them.

    Killed in the middle it goes on where it stopped. Raises `VectorIndexError`, and swaps
    nothing, if the new one lacks a symbol or the newest state of one.
    """
    refuse_one_folder_for_both(settings)
    if backend_of(settings) == "embedded":
        folders.take_back(settings.index.path)

    async def main() -> Rebuild:
        with MarketStore.open(settings.market.store) as store:
            async with index_to_read(settings, environ) as live:
                refuse_another_exchange(store, live)
                if live.collection.text_space_id is not None and not wants_texts(settings):
                    raise ConfigurationError(
                        f"the index at {live.location} has text vectors; rebuild it with --text, "
                        "or ingest without them into a new index"
                    )
                held = (await live.info()).symbols
            symbols = [of.symbol for of in held]
            spaces = spaces_of(settings, store, symbols)
            collection = collection_of(spaces.state, store.exchange, spaces.text)
            async with _beside(settings, environ, collection) as (index, name):
                reports = [
                    await _rebuilt(settings, store, index, spaces, of, now_ms, progress)
                    for of in held
                ]
                async with index_to_read(settings, environ) as live:  # it may have grown meanwhile
                    await _refuse_less(index, (await live.info()).symbols)
            return await _swapped(settings, environ, reports, name)

    return asyncio.run(main())


def prune_index(
    settings: Settings, environ: Mapping[str, str], *, also_building: bool = False
) -> list[str]:
    """Delete the versions that were live before, and those being built if told; their names."""
    if backend_of(settings) == "embedded":
        return folders.prune(settings.index.path, also_building=also_building)
    from llm_trader.index.qdrant.versions import prune

    return asyncio.run(prune(qdrant_server(settings, environ), also_building=also_building))


async def _versions(settings: Settings, environ: Mapping[str, str]) -> list[Any]:
    if backend_of(settings) == "embedded":
        return list(folders.versions(settings.index.path))
    from llm_trader.index.qdrant.versions import versions

    return list(await versions(qdrant_server(settings, environ)))


@asynccontextmanager
async def _beside(
    settings: Settings, environ: Mapping[str, str], collection: Collection
) -> AsyncIterator[tuple[VectorIndex, str]]:
    """An index that nobody searches yet, and its name; a half-built one is taken up again."""
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
    with suppress(VectorIndexError), EmbeddedIndex.open(folder) as begun:
        if differences := begun.collection.differences(collection):
            raise ConfigurationError(
                f"the version that was begun at {folder} holds other points: "
                f"{'; '.join(differences)}; delete it with: llm-trader index prune --also-building"
            )


async def _rebuilt(
    settings: Settings,
    store: MarketStore,
    index: VectorIndex,
    spaces: Spaces,
    held: SymbolPoints,
    now_ms: Millis,
    progress: Progress,
) -> IngestReport:
    plan = plan_of(settings, held.first_timestamp_ms, held.last_timestamp_ms)
    (report,) = await ingest(
        store,
        index,
        spaces,
        [held.symbol],
        plan,
        build_id=BUILD_ID,
        started_at=iso8601(now_ms),
        progress=progress,
    )
    return report


async def _refuse_less(index: VectorIndex, held: list[SymbolPoints]) -> None:
    built = {of.symbol: of for of in (await index.info()).symbols}
    for of in held:
        if of.symbol not in built:
            lacking = f"no state of {of.symbol}"
        elif built[of.symbol].last_timestamp_ms < of.last_timestamp_ms:
            lacking = f"not the newest states of {of.symbol}"
        else:
            continue
        raise VectorIndexError(
            f"the rebuilt index has {lacking}, so the live one stays; where those were ingested "
            "meanwhile, rebuild again; else see whether the market store reaches as far: "
            "llm-trader data info"
        )


async def _swapped(
    settings: Settings, environ: Mapping[str, str], reports: list[IngestReport], name: str
) -> Rebuild:
    if backend_of(settings) == "embedded":
        old = folders.swap_in(settings.index.path)
        return Rebuild(reports=reports, live=name, before=str(old))
    from llm_trader.index.qdrant.versions import swap, versions

    server = qdrant_server(settings, environ)
    before = next((of.name for of in await versions(server) if of.live), None)
    await swap(server, name)
    return Rebuild(reports=reports, live=name, before=before)
