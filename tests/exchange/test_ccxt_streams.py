"""The fake exchange's streams are what an unmodified ccxt.pro takes for those of the venues."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_trader.market.simulation import simulate
from llm_trader.timeframe import DAY_MS, H4, M3, M5, MINUTE_MS, parse_time
from tests.exchange.clock import SimulatedClock
from tests.exchange.hearing import pushed
from tests.exchange.listings import listing_of
from tests.exchange.process import ExchangeProcess
from tests.exchange.real_data import real_listings
from tests.exchange.server import FakeExchange
from tests.market.builders import START_MS

ccxt = pytest.importorskip("ccxt.pro")

NOW_MS = START_MS + DAY_MS - 10 * MINUTE_MS
SYMBOLS = {"BTC/USDT:USDT": "BTCUSDT", "ETH/USDT:USDT": "ETHUSDT"}
# The layout of Binance since 2026-04-23, the one before, which ccxt takes as it is, and Bybit.
LAYOUTS = {"binance": "/ws", "binance before the split": "/ws/", "bybit": "/v5/public/linear"}


def client_of(layout: str, url: str) -> Any:
    name = "bybit" if layout == "bybit" else "binanceusdm"
    client = getattr(ccxt, name)({"options": {"fetchMarkets": {"types": ["linear"]}}})
    api = client.urls["api"]
    for key, address in api.items():
        if isinstance(address, str):
            for host in ("https://fapi.binance.com", "https://api.bybit.com"):
                api[key] = client.implode_hostname(api[key]).replace(host, url)
    streams = api["ws"]["public"] if layout == "bybit" else api["ws"]
    streams["linear"] = url.replace("http://", "ws://") + LAYOUTS[layout]
    client.enableRateLimit = False
    return client


@pytest.fixture
def exchange() -> Iterator[FakeExchange]:
    histories = [simulate(name, start_ms=START_MS, days=2, seed=3) for name in SYMBOLS.values()]
    with FakeExchange(map(listing_of, histories), NOW_MS, updates_per_candle=6) as running:
        yield running


@pytest.fixture(params=LAYOUTS)
async def client(request: pytest.FixtureRequest, exchange: FakeExchange) -> AsyncIterator[Any]:
    client = client_of(request.param, exchange.url)
    yield client
    await client.close()


async def watch(client: Any, pairs: list[list[str]]) -> None:
    while True:
        await client.watch_ohlcv_for_symbols(pairs)


async def until_known(client: Any, pairs: list[list[str]]) -> None:
    async with asyncio.timeout(5):
        # ccxt has no event for all of them.
        while not all(client.ohlcvs.get(symbol, {}).get(name) for symbol, name in pairs):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_ccxt_hears_what_a_request_gives_once_candles_are_closed(
    client: Any, exchange: FakeExchange
):
    pairs = [[symbol, name] for symbol in SYMBOLS for name in ("3m", "4h")]
    watching = asyncio.create_task(watch(client, pairs))
    try:
        await until_known(client, pairs)
        for step in range(1, 41):
            exchange.market.now_ms = NOW_MS + step * MINUTE_MS // 2
            await pushed(exchange)
            await asyncio.sleep(0.005)
    finally:
        watching.cancel()
    for symbol, name in pairs:
        heard = list(client.ohlcvs[symbol][name])
        asked = await client.fetch_ohlcv(symbol, name, since=heard[0][0], limit=100)
        assert len(heard) == {"3m": 8, "4h": 2}[name]
        assert heard[:-1] == asked[:-1]
        assert heard[-1][0] == asked[-1][0]


async def test_ccxt_is_told_of_a_lost_connection_and_can_come_back(
    client: Any, exchange: FakeExchange
):
    symbol = next(iter(SYMBOLS))
    await client.watch_ohlcv(symbol, "3m")
    exchange.stream_faults.inject("disconnect")
    with pytest.raises(ccxt.NetworkError):
        await client.watch_ohlcv(symbol, "3m")
    assert (await client.watch_ohlcv(symbol, "3m"))[-1][0] == M3.floor(NOW_MS)
    assert exchange.sockets.accepted == 2


async def test_ccxt_raises_an_error_for_a_symbol_that_bybit_refuses(exchange: FakeExchange):
    client = client_of("bybit", exchange.url)
    try:
        await client.load_markets()
        exchange.market.delist("BTCUSDT")
        with pytest.raises(ccxt.ExchangeError, match=r"handler not found,topic:kline.3.BTCUSDT"):
            await client.watch_ohlcv("BTC/USDT:USDT", "3m")
    finally:
        await client.close()


async def test_a_process_of_its_own_runs_by_the_clock_that_it_is_given():
    clock = SimulatedClock.starting(START_MS + DAY_MS, speed=1500)
    with ExchangeProcess(
        list(SYMBOLS.values()), clock, start_ms=START_MS, updates_per_candle=3
    ) as exchange:
        client = client_of("bybit", exchange.url)
        watching = asyncio.create_task(watch(client, [["BTC/USDT:USDT", "3m"]]))
        try:
            await until_known(client, [["BTC/USDT:USDT", "3m"]])
            before_ms = clock.now_ms()
            assert before_ms <= await client.fetch_time() <= clock.now_ms()
            await clock.sleep(6 * M3.ms / 1000)
            exchange.tell(inject={"kind": "stalled"})
            heard = list(client.ohlcvs["BTC/USDT:USDT"]["3m"])
        finally:
            watching.cancel()
        asked = await client.fetch_ohlcv("BTC/USDT:USDT", "3m", since=heard[0][0], limit=100)
        await client.close()
        state = exchange.tell(state=True)
    assert len(heard) >= 5
    assert heard[:-1] == asked[: len(heard) - 1]
    assert (state["accepted"], state["stream_faults"]) == (1, 1)


async def test_it_serves_real_data(real_data: Path):
    now_ms = parse_time("2025-10-10T21:16:40Z")
    listings = real_listings(real_data / "bybit_5m_2025-09_2026-03", ["BTCUSDT"])
    with FakeExchange(listings, now_ms, updates_per_candle=5) as exchange:
        client = client_of("bybit", exchange.url)
        try:
            forming = (await client.watch_ohlcv("BTC/USDT:USDT", "4h"))[-1]
            (asked,) = await client.fetch_ohlcv("BTC/USDT:USDT", "4h", since=H4.floor(now_ms))
        finally:
            await client.close()
    assert forming == asked
    part = listings[0].candles[M5].between(H4.floor(now_ms), M5.floor(now_ms))
    assert forming[1] == part.open[0]
    assert forming[3] <= part.low.min()
