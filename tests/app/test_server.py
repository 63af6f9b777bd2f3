"""What is wired together, and which pairs of store, index and settings are refused."""

from __future__ import annotations

import asyncio
import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from llm_trader.app.indexes import collection_of
from llm_trader.app.ingestion import BUILD_ID, ingest_from_store, intraday_timeframe
from llm_trader.app.job import Job
from llm_trader.app.server import query_server
from llm_trader.embedding.state import StateSpace
from llm_trader.errors import (
    ConfigurationError,
    InvalidInputError,
    LlmTraderError,
    SymbolNotFoundError,
    VectorIndexError,
)
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.ingestion import Spaces
from llm_trader.logs import configure_logging
from llm_trader.market.config import MarketConfig
from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.rpc.client import RpcClient, RpcError
from llm_trader.rpc.key_file import create_key
from llm_trader.settings.tree import Settings
from llm_trader.snapshot.config import SnapshotConfig
from llm_trader.timeframe import DAY_MS, H1, M1, M3, M5, Timeframe
from tests.cli.corridor import AT_MS, END_MS, START_MS, SYMBOL, SYMBOLS, Corridor, write
from tests.market.builders import run_of_candles


@pytest.fixture
def log(restored_logging: None) -> StringIO:
    """What is logged, as JSON lines."""
    stream = StringIO()
    configure_logging("info", "json", stream)
    return stream


def store_of(path: Path, **timeframes: tuple[Timeframe, ...]) -> MarketStore:
    """A store with candles of the given timeframes by symbol, open for writing."""
    store = MarketStore.open(path, write=True, exchange="simulated")
    for symbol, wanted in timeframes.items():
        for timeframe in wanted:
            made = simulate(symbol, start_ms=START_MS, days=1, seed=1, timeframe=timeframe)
            store.write(symbol, made.intraday, "simulated", written_at_ms=END_MS)
    return store


@pytest.mark.parametrize(
    ("symbols", "chosen"),
    [(["BTCUSDT"], M3), (["ETHUSDT"], M5), (["BTCUSDT", "ETHUSDT"], M5)],
)
def test_snapshots_are_made_of_the_finest_candles_that_all_symbols_have(
    tmp_path: Path, symbols: list[str], chosen: Timeframe
) -> None:
    with store_of(tmp_path, BTCUSDT=(M1, M3, M5), ETHUSDT=(M1, M5)) as store:
        assert intraday_timeframe(Settings(), store, symbols) == chosen
        asked = Settings(snapshot=SnapshotConfig(intraday="1m"))
        assert intraday_timeframe(asked, store, symbols) == M1


def test_symbols_without_common_candles_and_unknown_ones_are_told_apart(tmp_path: Path) -> None:
    with store_of(tmp_path, BTCUSDT=(M3,), ETHUSDT=(M5,), SOLUSDT=(H1,)) as store:
        for symbols in (["BTCUSDT", "ETHUSDT"], ["SOLUSDT"]):
            with pytest.raises(InvalidInputError, match="neither 3m nor 5m candles of all of"):
                intraday_timeframe(Settings(), store, symbols)
        with pytest.raises(SymbolNotFoundError, match="'DOGEUSDT'; available: BTCUSDT, ETHUSDT"):
            intraday_timeframe(Settings(), store, ["BTCUSDT", "DOGEUSDT"])


def test_a_collection_leads_back_to_its_space() -> None:
    for timeframe in (M1, M3, M5):
        collection = collection_of(Spaces(StateSpace(timeframe)), "bybit")
        assert collection.exchange == "bybit"
        assert collection.feature_version == f"v2_{timeframe}4h"
        assert collection.state_space().space_id == collection.state_space_id
        assert collection.state_space().dimension == collection.dimension


def test_no_symbols_means_all_and_a_run_remembers_what_made_it(
    corridor: Corridor, tmp_path: Path
) -> None:
    settings = corridor.settings(index__path=tmp_path)
    told: list[tuple[str, int, int]] = []
    start, end = AT_MS, AT_MS + 3 * 900_000
    job = Job(settings, {}, END_MS, lambda *step: told.append(step))
    reports = ingest_from_store(job, [], start, end)
    assert [(report.symbol, report.added) for report in reports] == [(s, 4) for s in SYMBOLS]
    assert told == [(s, done, 4) for s in SYMBOLS for done in (0, 4)]
    with EmbeddedIndex.open(tmp_path) as index:
        (run,) = asyncio.run(index.info()).runs
    assert (run.build_id, run.exchange, run.started_at) == (
        BUILD_ID,
        "simulated",
        "2025-03-02T00:00:00Z",
    )


def refused_server(settings: Settings, environ: dict[str, str] | None = None) -> LlmTraderError:
    with pytest.raises(LlmTraderError) as raised:
        opened_and_closed(settings, environ)
    return raised.value


def opened_and_closed(settings: Settings, environ: dict[str, str] | None = None) -> None:
    async def main() -> None:
        async with query_server(settings, environ or {}):
            pass

    asyncio.run(main())


def test_a_refused_server_leaves_nothing_open(corridor: Corridor, tmp_path: Path) -> None:
    with MarketStore.open(tmp_path / "bybit", write=True, exchange="bybit") as store:
        store.write("BTCUSDT", run_of_candles(2), "made", written_at_ms=0)
    mixed = corridor.settings(market__store=tmp_path / "bybit")
    for _ in range(2):  # an index left open could not be opened again
        error = refused_server(mixed)
        assert isinstance(error, ConfigurationError)
        assert "is of bybit, the index at" in error.message
        assert "of simulated; give a store and an index that belong together" in error.message


def test_the_address_is_judged_before_anything_is_opened(
    corridor: Corridor, tmp_path: Path
) -> None:
    nowhere = {"index__path": tmp_path / "none", "serving__host": "0.0.0.0"}
    error = refused_server(corridor.settings(**nowhere))
    assert isinstance(error, ConfigurationError)
    assert "refusing to listen on 0.0.0.0" in error.message
    allowed = corridor.settings(**nowhere, serving__allow_unauthenticated_remote=True)
    assert isinstance(refused_server(allowed), VectorIndexError)
    create_key(tmp_path / "keys.json", "desk", ["query"], now_ms=0, expires_at_ms=None)
    with_keys = corridor.settings(**nowhere, serving__keys_file=tmp_path / "keys.json")
    assert isinstance(refused_server(with_keys), VectorIndexError)
    without_file = corridor.settings(**nowhere, serving__keys_file=tmp_path / "none.json")
    assert "there is no key file" in refused_server(without_file).message
    with_tokens = corridor.settings(**nowhere, serving__auth_tokens_env="MY_TOKENS")
    assert isinstance(refused_server(with_tokens, {"MY_TOKENS": "one"}), VectorIndexError)


@pytest.mark.parametrize("value", [None, "", " , "])
def test_a_token_variable_without_a_token_is_refused(corridor: Corridor, value: str | None) -> None:
    settings = corridor.settings(serving__auth_tokens_env="MY_TOKENS")
    error = refused_server(settings, {} if value is None else {"MY_TOKENS": value})
    assert isinstance(error, ConfigurationError)
    assert "names MY_TOKENS, but that environment variable holds no token" in error.message


async def test_each_of_several_tokens_is_accepted_and_no_other(corridor: Corridor) -> None:
    settings = corridor.settings(serving__auth_tokens_env="MY_TOKENS")
    async with query_server(settings, {"MY_TOKENS": "one, two"}) as server:
        await server.start()
        try:
            for token in ("one", "two"):
                async with await RpcClient.connect(*server.address, token=token) as client:
                    assert (await client.call("rag.stats"))["version"]
            with pytest.raises(RpcError) as raised:
                await RpcClient.connect(*server.address, token="one, two")
            assert raised.value.rpc_code == -32010
            async with await RpcClient.connect(*server.address) as client:
                with pytest.raises(RpcError) as raised:
                    await client.call("rag.stats")
                assert raised.value.rpc_code == -32010
        finally:
            await server.stop()


async def test_limits_of_the_settings_are_those_of_the_server(corridor: Corridor) -> None:
    settings = corridor.settings(serving__max_frame_kib=1, serving__rate_limit_per_s=0.001)
    async with query_server(settings, {}) as server:
        await server.start()
        try:
            async with await RpcClient.connect(*server.address) as client:
                for _ in range(20):  # the burst
                    await client.call("rpc.ping")
                with pytest.raises(RpcError) as raised:
                    await client.call("rpc.ping")
                assert raised.value.rpc_code == -32011
            async with await RpcClient.connect(*server.address) as client:
                with pytest.raises(RpcError) as raised:
                    await client.call("rpc.ping", {"padding": "x" * 2000})
                assert raised.value.data == {"limit_bytes": 1024}
        finally:
            await server.stop()


def test_a_mistyped_store_stops_the_server_with_the_remedy(
    corridor: Corridor, tmp_path: Path
) -> None:
    error = refused_server(corridor.settings(market__store=tmp_path / "typo"))
    assert f"there is no market store at {tmp_path / 'typo'}; correct --store" in error.message
    assert f"llm-trader data import <folder> --store {tmp_path / 'typo'}" in error.message


def test_only_the_default_store_may_be_missing_and_the_log_says_so(
    corridor: Corridor, tmp_path: Path, log: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    opened_and_closed(corridor.settings(market__store=MarketConfig().store))
    (event,) = [json.loads(line) for line in log.getvalue().splitlines()]
    assert (event["level"], event["event"]) == ("warning", "market_store_missing")
    assert event["path"] == "var/market"
    log.truncate(0)
    log.seek(0)
    opened_and_closed(corridor.settings())
    assert log.getvalue() == ""


def test_a_server_of_an_empty_index_says_so_at_once_and_is_not_ready(
    corridor: Corridor, tmp_path: Path, log: StringIO
) -> None:
    settings = corridor.settings(index__path=tmp_path / "index")
    # The warm-up: snapshots, and none of them complete.
    ingest_from_store(Job(settings, {}, END_MS), [], START_MS, START_MS + DAY_MS)

    async def stats() -> Any:
        async with query_server(settings, {}) as server:
            await server.start()
            try:
                async with await RpcClient.connect(*server.address) as client:
                    return await client.call("rag.stats")
            finally:
                await server.stop()

    assert asyncio.run(stats())["ready"] is False
    events = [json.loads(line) for line in log.getvalue().splitlines()]
    (event,) = [event for event in events if event["event"] == "index_empty"]
    assert (event["level"], event["location"]) == ("warning", str(tmp_path / "index"))


def test_a_folder_that_is_no_store_is_refused(corridor: Corridor, tmp_path: Path) -> None:
    error = refused_server(corridor.settings(market__store=tmp_path))
    assert "no market store at" in error.message


def test_a_store_of_another_interval_of_candles_still_serves_its_index(
    corridor: Corridor, tmp_path: Path
) -> None:
    """The index says which candles states are made of, whatever else the store has."""
    history = corridor.histories[SYMBOL]
    with MarketStore.open(tmp_path, write=True, exchange="simulated") as store:
        write(store, history)
        minutes = simulate(SYMBOL, start_ms=END_MS - DAY_MS, days=1, seed=7, timeframe=M3)
        store.write(SYMBOL, minutes.intraday, "simulated", written_at_ms=END_MS)
    opened_and_closed(corridor.settings(market__store=tmp_path))
