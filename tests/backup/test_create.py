"""Backups are made: what they hold, of which moment they are, and what a kill leaves behind."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from llm_trader import __version__
from llm_trader.backup.create import create_backup
from llm_trader.backup.manifest import MANIFEST, Listed, Places, backups_in, read_manifest
from llm_trader.backup.restore import restore_backup
from llm_trader.backup.verify import verify_backup
from llm_trader.errors import (
    ConfigurationError,
    InvalidInputError,
    StoreError,
    VectorIndexError,
)
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import M3
from tests.backup.builders import (
    CANDLES,
    CREATED_AT,
    NAME,
    RUN,
    SLOTS,
    SYMBOLS,
    Site,
    everything,
    points,
)
from tests.index.builders import SYMBOL, same_points, stored
from tests.market.builders import run_of_candles
from tests.market.processes import hear, running, tell
from tests.retrieval.builders import COLLECTION, past

BATCH = 25
GROWN = 5000

MARKET_WRITER = """
from tests.backup.test_create import BATCH, GROWN
candles = run_of_candles(GROWN, M3)
with MarketStore.open(path, write=True, exchange="bybit") as store:
    say("open")
    for first in range(0, GROWN, BATCH):
        part = candles.between(START_MS + first * M3.ms, START_MS + (first + BATCH) * M3.ms)
        store.write("BTCUSDT", part, "tests", written_at_ms=1)
        say(first)
    wait()
"""

INDEX_WRITER = """
import asyncio
from llm_trader.index.embedded import EmbeddedIndex
from tests.backup.test_create import BATCH
from tests.retrieval.builders import COLLECTION, past

async def main():
    points = past(range(2000))
    with EmbeddedIndex.create_or_open(path, COLLECTION) as index:
        say("open")
        for first in range(0, 2000, BATCH):
            await index.upsert(points.take(slice(first, first + BATCH)))
            say(first)
        wait()

asyncio.run(main())
"""

BACKUP = """
import asyncio
from llm_trader.backup.create import create_backup
from llm_trader.backup.manifest import Places

def report_and_wait(what, done, total):
    say(what.split()[0], done, total)
    wait()

sources = Places(market=path / "market", index=path / "index")
asyncio.run(create_backup(
    path / "backups", "nightly", sources, created_at="now", progress=report_and_wait
))
say("complete")
"""


async def test_a_backup_describes_itself_and_every_file_in_it(site: Site) -> None:
    manifest = await site.back_up()
    assert read_manifest(site.backup) == manifest
    assert (manifest.name, manifest.created_at) == (NAME, CREATED_AT)
    assert (manifest.schema_version, manifest.package_version) == (1, __version__)
    assert manifest.parts == ["market", "index"]
    files = {p.relative_to(site.backup).as_posix() for p in site.backup.rglob("*") if p.is_file()}
    assert files == {MANIFEST, "answers.json", "market/data.mdb", "index/data.mdb"}
    assert {file.path for file in manifest.files} == files - {MANIFEST}
    for file in manifest.files:
        content = (site.backup / file.path).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.bytes, file.sha256)


async def test_a_backup_says_what_it_holds(site: Site) -> None:
    manifest = await site.back_up()
    assert manifest.market is not None
    assert manifest.index is not None
    assert (manifest.market.location, manifest.market.exchange) == (str(site.market), "bybit")
    series = [(s.symbol, s.kind, s.timeframe, s.rows) for s in manifest.market.series]
    assert series == [(symbol, "candles", "3m", CANDLES) for symbol in SYMBOLS]
    assert manifest.index.collection == COLLECTION
    assert [(of.symbol, of.points) for of in manifest.index.symbols] == [
        (symbol, SLOTS) for symbol in SYMBOLS
    ]
    assert [(run.build_id, run.exchange, run.started_at) for run in manifest.index.runs] == [RUN]


async def test_the_copies_are_stores_in_their_own_right(site: Site) -> None:
    await site.back_up()
    with (
        MarketStore.open(site.backup / "market") as copy,
        EmbeddedIndex.open(site.backup / "index") as index,
    ):
        assert copy.candles(SYMBOL, M3).close.tolist() == run_of_candles(CANDLES).close.tolist()
        for held, wanted in zip(await everything(index), points(), strict=True):
            assert same_points(held, wanted)


@pytest.mark.parametrize("part", ["market", "index"])
async def test_a_part_can_be_backed_up_alone(site: Site, part: str) -> None:
    sources = Places(**{part: getattr(site, part)})
    manifest = await create_backup(site.backups, NAME, sources, created_at=CREATED_AT)
    assert manifest.parts == [part]
    assert (await verify_backup(site.backup)).problems == []


async def test_the_market_is_that_of_one_moment_while_another_process_writes(
    tmp_path: Path,
) -> None:
    market, whole = tmp_path / "market", run_of_candles(GROWN)
    with running(MARKET_WRITER, market) as writer:
        assert hear(writer) == "open"
        counts = []
        for number in range(4):
            for _ in range(20):
                hear(writer)
            sources = Places(market=market)
            made = await create_backup(tmp_path, f"b{number}", sources, created_at=CREATED_AT)
            with MarketStore.open(tmp_path / f"b{number}" / "market") as copy:
                candles = copy.candles(SYMBOL, M3)
            assert len(candles) % BATCH == 0, "a transaction is there as a whole or not at all"
            assert np.array_equal(candles.close, whole.close[: len(candles)])
            assert made.market is not None
            assert [series.rows for series in made.market.series] == [len(candles)]
            counts.append(len(candles))
    assert counts == sorted(counts)
    assert counts[0] >= 20 * BATCH


@pytest.mark.soak
async def test_the_index_is_that_of_one_moment_while_another_process_writes(
    tmp_path: Path,
) -> None:
    index, whole = tmp_path / "index", past(range(2000))
    EmbeddedIndex.create_or_open(index, COLLECTION).close()
    with running(INDEX_WRITER, index) as writer:
        assert hear(writer) == "open"
        for number in range(4):
            for _ in range(10):
                hear(writer)
            sources, folder = Places(index=index), tmp_path / f"b{number}"
            await create_backup(tmp_path, folder.name, sources, created_at=CREATED_AT)
            with EmbeddedIndex.open(folder / "index") as copy:
                held = await stored(copy)
            assert len(held) % BATCH == 0
            assert len(held) >= 10 * BATCH * (number + 1)
            assert same_points(held, whole.take(slice(0, len(held))))
            assert (await verify_backup(folder)).problems == []


async def test_progress_counts_bytes_up_to_all_of_them(site: Site) -> None:
    told: dict[str, list[tuple[int, int]]] = {}
    await create_backup(
        site.backups,
        NAME,
        site.sources,
        created_at=CREATED_AT,
        progress=lambda what, *counts: told.setdefault(what, []).append(counts),  # type: ignore[arg-type]
    )
    assert list(told) == [f"copying {site.index}", f"copying {site.market}", "digesting"]
    for counts in told.values():
        done = [of for of, _ in counts]
        assert done == sorted(done)
        assert counts[-1][0] == counts[-1][1] > 10_000


def killed_at(site: Site, word: str) -> None:
    with running(BACKUP, site.folder) as process:
        while not hear(process).startswith(word):
            tell(process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["copying", pytest.param("digesting", marks=pytest.mark.soak)])
async def test_a_backup_that_was_killed_is_listed_as_unfinished_and_never_restored_from(
    site: Site, tmp_path: Path, moment: str
) -> None:
    killed_at(site, moment)
    (listed,) = backups_in(site.backups)
    assert (listed.name, listed.state, listed.parts) == (NAME, "unfinished", [])
    for asked in (verify_backup(site.backup), restore_backup(site.backup, site.targets(tmp_path))):
        with pytest.raises(ConfigurationError, match=r"is unfinished.*make another"):
            await asked
    assert not (tmp_path / "market").exists()
    with pytest.raises(ConfigurationError, match="is there already; choose another --name"):
        await site.back_up()
    await site.back_up("again")
    assert (await verify_backup(site.backups / "again")).problems == []
    assert [of.state for of in backups_in(site.backups)] == ["complete", "unfinished"]


async def test_a_source_is_not_closed_under_the_thread_that_copies_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    close = EmbeddedIndex.close

    def copy_slowly(index: EmbeddedIndex, folder: Path) -> None:
        loop.call_soon_threadsafe(begun.set)
        time.sleep(0.3)
        told.append("copied")

    def tell_and_close(index: EmbeddedIndex) -> None:
        told.append("closed")
        close(index)

    monkeypatch.setattr(EmbeddedIndex, "copy_to", copy_slowly)
    monkeypatch.setattr(EmbeddedIndex, "close", tell_and_close)
    work = asyncio.create_task(site.back_up())
    await begun.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert told == ["copied", "closed"]
    assert backups_in(site.backups) == []


async def test_backups_are_listed_with_their_size_and_contents(site: Site) -> None:
    manifest = await site.back_up()
    (site.backups / "torn").mkdir()
    (site.backups / "torn" / MANIFEST).write_text('{"schema_version": 1, "name": "to')
    (site.backups / "later").mkdir()
    (site.backups / "later" / MANIFEST).write_text('{"schema_version": 2}')
    later, nightly, torn = backups_in(site.backups)
    assert nightly == Listed(
        name=NAME,
        state="complete",
        created_at=CREATED_AT,
        bytes=sum(file.bytes for file in manifest.files),
        parts=["market", "index"],
    )
    assert (later.state, torn.state) == ("unreadable", "unreadable")
    assert backups_in(site.folder / "nowhere") == []


async def test_a_backup_of_another_schema_version_is_refused_with_a_remedy(site: Site) -> None:
    manifest = await site.back_up()
    other = msgspec.structs.replace(manifest, schema_version=2)
    (site.backup / MANIFEST).write_bytes(msgspec.json.encode(other))
    with pytest.raises(ConfigurationError, match="schema version 2, this program reads 1; use"):
        await verify_backup(site.backup)


@pytest.mark.parametrize(
    ("name", "told"),
    [("../up", "is no name for a backup"), ("", "is no name"), (".hidden", "is no name")],
)
async def test_a_name_that_is_no_plain_folder_is_refused(site: Site, name: str, told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        await site.back_up(name)


async def test_a_source_that_is_missing_is_told_and_leaves_no_backup(site: Site) -> None:
    nowhere = site.folder / "nowhere"
    for error, sources in (
        (StoreError, Places(index=site.index, market=nowhere)),
        (VectorIndexError, Places(index=nowhere, market=site.market)),
        (InvalidInputError, Places()),
    ):
        with pytest.raises(error):
            await create_backup(site.backups, NAME, sources, created_at=CREATED_AT)
        assert backups_in(site.backups) == []


async def test_a_folder_that_cannot_be_made_is_refused_with_a_remedy(site: Site) -> None:
    (site.folder / "backups").write_text("a file")
    with pytest.raises(ConfigurationError, match="name a folder that can be read and written"):
        await site.back_up()


async def test_a_blank_store_and_an_empty_index_can_be_backed_up_too(tmp_path: Path) -> None:
    site = Site(tmp_path)
    MarketStore.open(site.market, write=True, exchange="bybit").close()
    EmbeddedIndex.create_or_open(site.index, COLLECTION).close()
    await site.back_up()
    report = await verify_backup(site.backup)
    assert (report.problems, report.answers) == ([], 0)
    restored = Places(market=tmp_path / "m", index=tmp_path / "i")
    await restore_backup(site.backup, restored)
    with EmbeddedIndex.open(tmp_path / "i") as index:
        assert (await index.info()).symbols == []
