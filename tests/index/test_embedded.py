"""What the embedded backend does beyond the contract: folders, processes, live readers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import lmdb
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.errors import (
    ConfigurationError,
    DamagedIndexError,
    StoreError,
    StoreLockedError,
    SymbolNotFoundError,
    VectorIndexError,
)
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import STATE, PointTable
from llm_trader.index.protocol import Hits, SearchQuery
from llm_trader.market.series_changes import DataMark
from llm_trader.market.store import MarketStore
from llm_trader.storage import environment
from tests.index.builders import (
    ALWAYS,
    SYMBOL,
    at,
    collection,
    copied,
    found,
    fresh_embedded,
    merged,
    points_at,
    same_points,
    stored,
    unit_vectors,
)
from tests.market.processes import hear, running, tell

# Batches as another process writes them: what they do to the points that are there already.
BATCHES = {
    "first": (range(100, 140), 1),
    "appended": (range(140, 180), 2),
    "appended with room to spare": (range(180, 181), 3),
    "before all others": (range(20, 25), 4),
    "between others": (range(50, 60), 5),
    "some replaced, last among them": ([55, 100, 139, 180], 6),
    "replaced, between and appended at once": ([56, 57, 61, 99, 180, 181, 182], 7),
    "appended again": (range(183, 400), 8),
}

WRITER = """
import asyncio
from llm_trader.index.embedded import EmbeddedIndex
from tests.index.builders import collection, points_at
from tests.index.test_embedded import BATCHES

async def main():
    with EmbeddedIndex.create_or_open(path, collection()) as index:
        say("open")
        for slots, seed in BATCHES.values():
            wait()
            say(await index.upsert(points_at(slots, seed, run=seed)))
        wait()
        await index.upsert(points_at([1, 2, 3], 9, symbol="ETHUSDT"))
        await index.upsert(points_at([4], 10, symbol="ETHUSDT"))
        say("another symbol")
        wait()

asyncio.run(main())
"""

HOLDER = """
from llm_trader.index.embedded import EmbeddedIndex
from tests.index.builders import collection

with EmbeddedIndex.create_or_open(path, collection()):
    say("open")
    wait()
"""

IN_THE_MIDDLE_OF_A_READ = """
import lmdb

with lmdb.open(str(path), max_dbs=4, readonly=True) as environment, environment.begin():
    say("reading")
    wait()
"""


async def make_index(path: Path, *tables: PointTable) -> Path:
    with EmbeddedIndex.create_or_open(path, collection()) as index:
        for points in tables:
            await index.upsert(points)
    return path


def rewrite_meta(path: Path, **records: bytes | None) -> None:
    with (
        lmdb.open(str(path), max_dbs=4, map_size=2**24) as environment,
        environment.begin(write=True) as txn,
    ):
        meta = environment.open_db(b"meta", txn=txn)
        for key, value in records.items():
            if value is None:
                txn.delete(key.encode(), db=meta)
            else:
                txn.put(key.encode(), value, db=meta)


async def test_a_live_reader_takes_over_all_that_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "index"
    with running(WRITER, path) as writer:
        assert hear(writer) == "open"
        with EmbeddedIndex.open(path) as reader:
            with pytest.raises(SymbolNotFoundError):
                await stored(reader)
            expected = points_at([])
            for name, (slots, seed) in BATCHES.items():
                tell(writer)
                grown = merged(expected, points_at(slots, seed, run=seed))
                assert hear(writer) == str(len(grown) - len(expected)), name
                expected = grown
                assert same_points(await stored(reader), expected), name
                query = SearchQuery(SYMBOL, ALWAYS, expected.vectors[STATE][-1], 3)
                hits = await reader.search(query)
                assert found(hits).timestamp_ms[0] == expected.timestamp_ms[-1], name
                assert hits.eligible == len(expected), name
            tell(writer)
            assert hear(writer) == "another symbol"
            told = [(s.symbol, s.points) for s in (await reader.info()).symbols]
            assert told == [("BTCUSDT", len(expected)), ("ETHUSDT", 4)]
            live = {symbol: await stored(reader, symbol) for symbol in ("BTCUSDT", "ETHUSDT")}
        with EmbeddedIndex.open(path) as fresh:
            for symbol, points in live.items():
                assert same_points(await stored(fresh, symbol), points)
                assert (await fresh.timestamps(symbol)).tolist() == points.timestamp_ms.tolist()


slot_sets = st.sets(st.integers(0, 60), min_size=1, max_size=20).map(sorted)


@given(st.lists(slot_sets, min_size=2, max_size=8))
async def test_what_was_returned_stays_as_it_was_whatever_is_written_later(
    batches: list[list[int]],
) -> None:
    query = SearchQuery(SYMBOL, ALWAYS, unit_vectors(1, 0)[0], 5)
    kept: list[tuple[PointTable, PointTable]] = []
    kept_hits: list[tuple[Hits, list[float], PointTable]] = []
    async with fresh_embedded(collection()) as index:
        for seed, slots in enumerate(batches):
            await index.upsert(points_at(slots, seed))
            table, hits = await stored(index), await index.search(query)
            kept.append((table, copied(table)))
            kept_hits.append((hits, hits.cosine.tolist(), found(hits)))
    for table, as_it_was in kept:
        assert same_points(table, as_it_was)
    for hits, cosine, points in kept_hits:
        assert hits.cosine.tolist() == cosine
        assert same_points(found(hits), points)


@given(st.lists(slot_sets, min_size=1, max_size=6))
async def test_a_reopened_index_equals_the_one_that_grew(batches: list[list[int]]) -> None:
    async with fresh_embedded(collection()) as index:
        for seed, slots in enumerate(batches):
            await index.upsert(points_at(slots, seed, run=seed))
        grown = copied(await stored(index))
        info = await index.info()
        index.close()
        with EmbeddedIndex.open(Path(info.location)) as reopened:
            assert same_points(await stored(reopened), grown)
            assert await reopened.info() == info


def test_a_missing_folder_is_refused_with_the_command_that_makes_an_index(tmp_path: Path) -> None:
    with pytest.raises(VectorIndexError, match=r"no index at .*; make one with: rag-ingest"):
        EmbeddedIndex.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_an_empty_folder_is_refused_with_the_command_that_makes_an_index(tmp_path: Path) -> None:
    with pytest.raises(VectorIndexError, match=r"no index at .*; make one with: rag-ingest"):
        EmbeddedIndex.open(tmp_path)


def test_a_file_that_is_no_database_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(VectorIndexError, match="rag-ingest --index"):
        EmbeddedIndex.open(tmp_path)


def test_the_folder_of_a_market_store_is_refused_with_a_remedy(tmp_path: Path) -> None:
    MarketStore.open(tmp_path, write=True, exchange="bybit").close()
    with pytest.raises(VectorIndexError, match="rag-ingest --index"):
        EmbeddedIndex.open(tmp_path)


@pytest.mark.parametrize("written_by", ["this program", "the original one"])
def test_the_folder_of_a_market_store_is_not_written_to(tmp_path: Path, written_by: str) -> None:
    if written_by == "this program":
        MarketStore.open(tmp_path, write=True, exchange="bybit").close()
    else:
        with lmdb.open(str(tmp_path), max_dbs=4, map_size=2**24) as environment:
            environment.open_db(b"candles_3m")
    before = (tmp_path / "data.mdb").read_bytes()
    with pytest.raises((ConfigurationError, VectorIndexError), match="rag-ingest --index"):
        EmbeddedIndex.create_or_open(tmp_path, collection())
    assert (tmp_path / "data.mdb").read_bytes() == before


@pytest.mark.parametrize(
    ("records", "remedy"),
    [
        ({"collection": msgspec.json.encode(collection(schema_version=99))}, "index rebuild"),
        ({"columns": msgspec.json.encode(["price", "rsi_7"])}, "index rebuild"),
        ({"columns": None}, "ingest into"),
        ({"collection": None}, "ingest into"),
    ],
    ids=["schema", "columns", "no columns", "no collection"],
)
async def test_an_index_of_another_version_is_refused_with_a_remedy(
    tmp_path: Path, records: dict[str, bytes | None], remedy: str
) -> None:
    path = await make_index(tmp_path / "index", points_at([1, 2]))
    rewrite_meta(path, **records)
    for _ in range(2):  # a refusal leaves nothing open
        with pytest.raises(VectorIndexError, match=remedy):
            EmbeddedIndex.open(path)


async def test_an_index_of_another_collection_is_refused_with_every_difference(
    tmp_path: Path,
) -> None:
    path = await make_index(tmp_path / "index", points_at([1, 2]))
    other = collection(exchange="binance", dimension=8, intraday="3m")
    with pytest.raises(ConfigurationError, match="rag-ingest --index NEW") as refusal:
        EmbeddedIndex.create_or_open(path, other)
    said = str(refusal.value)
    assert "exchange is bybit, not binance" in said
    assert "dimension is 6, not 8" in said
    assert "intraday is 5m, not 3m" in said
    assert "schema_version" not in said
    assert "feature_version" not in said
    # The refusal, still held, leaves neither the lock nor the environment taken.
    with EmbeddedIndex.create_or_open(path, collection()) as index:
        assert len(await stored(index)) == 2


async def test_creating_again_opens_what_is_there(tmp_path: Path) -> None:
    path = await make_index(tmp_path / "a" / "b" / "index", points_at([1, 2]))
    with EmbeddedIndex.create_or_open(path, collection()) as index:
        assert await index.upsert(points_at([2, 3])) == 1
        assert len(await stored(index)) == 3


def test_a_second_writer_process_is_refused_with_the_first_ones_id(tmp_path: Path) -> None:
    path = tmp_path / "index"
    with running(HOLDER, path) as holder:
        assert hear(holder) == "open"
        with pytest.raises(StoreLockedError, match=f"process {holder.pid} ") as refusal:
            EmbeddedIndex.create_or_open(path, collection())
        assert refusal.value.details["pid"] == holder.pid
        tell(holder)
        holder.wait()
        EmbeddedIndex.create_or_open(path, collection()).close()


def test_a_second_writer_in_this_process_is_refused(tmp_path: Path) -> None:
    with (
        EmbeddedIndex.create_or_open(tmp_path, collection()),
        pytest.raises(StoreError, match="this process"),
    ):
        EmbeddedIndex.create_or_open(tmp_path, collection())


async def test_an_index_opened_for_reading_cannot_be_written_to(tmp_path: Path) -> None:
    path = await make_index(tmp_path / "index", points_at([1, 2]))
    with EmbeddedIndex.open(path) as reader:
        with pytest.raises(ConfigurationError, match="for reading only"):
            await reader.upsert(points_at([3]))
        with pytest.raises(ConfigurationError, match="for reading only"):
            await reader.begin_run("build", None, "2026-03-20T12:00:00Z")
        assert len(await stored(reader)) == 2
        assert (await reader.info()).runs == []


def test_a_reader_killed_while_it_read_does_not_count_once_a_writer_opened(tmp_path: Path) -> None:
    path = asyncio.run(make_index(tmp_path / "index", points_at([1, 2])))
    program = IN_THE_MIDDLE_OF_A_READ
    with running(program, path) as reader, running(program, path) as killed:
        assert hear(reader) == hear(killed) == "reading"
        killed.kill()
        killed.wait()
        EmbeddedIndex.create_or_open(path, collection()).close()
        with lmdb.open(str(path), max_dbs=4, readonly=True) as environment:
            at_work = {line.split()[0] for line in environment.readers().splitlines()}
    assert str(reader.pid) in at_work
    assert str(killed.pid) not in at_work


async def test_a_full_index_is_an_index_error_that_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "MAP_SIZE_BYTES", 2**18)
    held = points_at(range(100), 1)
    with EmbeddedIndex.create_or_open(tmp_path, collection()) as index:
        await index.upsert(held)
        with pytest.raises(VectorIndexError, match="split its symbols"):
            await index.upsert(points_at(range(50, 2000), 2))
        assert same_points(await stored(index), held)
        await index.upsert(points_at([100], 3))
        assert len(await stored(index)) == 101


async def test_a_closed_index_answers_with_an_index_error(tmp_path: Path) -> None:
    path = await make_index(tmp_path / "index", points_at([1, 2]))
    with EmbeddedIndex.open(path) as reader:
        assert len(await stored(reader)) == 2
    reader.close()
    for ask in (stored(reader), reader.info(), reader.timestamps(SYMBOL)):
        with pytest.raises(VectorIndexError):
            await ask


async def test_an_empty_index_answers_that_it_knows_no_symbol(tmp_path: Path) -> None:
    path = await make_index(tmp_path / "index")
    with EmbeddedIndex.open(path) as reader:
        query = SearchQuery(SYMBOL, ALWAYS, unit_vectors(1, 0)[0], 3)
        with pytest.raises(SymbolNotFoundError, match="available: none"):
            await reader.search(query)
        assert (await reader.timestamps(SYMBOL)).tolist() == []
        assert (await reader.info()).symbols == []


async def test_values_and_vectors_come_back_to_the_last_bit(tmp_path: Path) -> None:
    points = points_at(range(5), 3, run=7)
    points.values[0] = [5e-324, -0.0, 1.7976931348623157e308, 0.1, -1 / 3]
    path = await make_index(tmp_path / "index", points)
    with EmbeddedIndex.open(path) as reader:
        held = await stored(reader)
    assert held.values.tobytes() == points.values.tobytes()
    assert held.vectors[STATE].tobytes() == points.vectors[STATE].tobytes()
    assert held.run.tolist() == [7] * 5
    assert held.vectors[STATE].dtype == np.float32


REMOVER = """
import asyncio
from llm_trader.index.embedded import EmbeddedIndex
from tests.index.builders import SYMBOL, at, collection, points_at

async def main():
    with EmbeddedIndex.create_or_open(path, collection()) as index:
        say("open")
        wait()
        await index.remove(SYMBOL, at([2, 3]))
        say("removed")
        wait()
        # Taken over at once: 4 is written and removed, 5 removed and written, 2 comes back.
        await index.upsert(points_at([2, 4, 8], 5))
        await index.remove(SYMBOL, at([4, 5]))
        await index.upsert(points_at([5], 6))
        say("more")
        wait()
        await index.remove(SYMBOL, at(range(20)))
        say("all")
        wait()

asyncio.run(main())
"""


async def test_a_live_reader_loses_what_another_process_removes(tmp_path: Path) -> None:
    path = await make_index(tmp_path / "index", points_at(range(8)))
    with EmbeddedIndex.open(path) as reader, running(REMOVER, path) as writer:
        assert hear(writer) == "open"
        before = await stored(reader)
        for said, left in (
            ("removed", [0, 1, 4, 5, 6, 7]),
            ("more", [0, 1, 2, 5, 6, 7, 8]),
        ):
            tell(writer)
            assert hear(writer) == said
            held = await stored(reader)
            assert held.timestamp_ms.tolist() == at(left).tolist()
            hits = await reader.search(SearchQuery(SYMBOL, ALWAYS, unit_vectors(1, 0)[0], 99))
            assert hits.eligible == len(left)
        five = held.take(held.timestamp_ms == at([5])[0])
        assert np.array_equal(five.values, points_at([5], 6).values)
        tell(writer)
        assert hear(writer) == "all"
        with pytest.raises(SymbolNotFoundError):
            await stored(reader)
        assert same_points(before, points_at(range(8)))
    with EmbeddedIndex.open(path) as fresh:
        assert (await fresh.info()).symbols == []


async def test_a_damaged_data_mark_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index"
    with EmbeddedIndex.create_or_open(path, collection()) as index:
        await index.set_data_mark(SYMBOL, DataMark(1, {}, 1))
    rewrite_meta(path, **{f"data_mark:{SYMBOL}": b'{"change":2}    '})
    with EmbeddedIndex.open(path) as index, pytest.raises(DamagedIndexError, match="data_mark"):
        await index.data_mark(SYMBOL)
