"""The fake exchange is what an unmodified ccxt takes for the venues."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import aiohttp
import numpy as np
import pytest

from llm_trader.market.simulation import simulate
from llm_trader.timeframe import DAY_MS, M3, MINUTE_MS
from tests.exchange.clock import SimulatedClock
from tests.exchange.listings import Listing, listing_of
from tests.exchange.server import FakeExchange
from tests.market.builders import START_MS

ccxt = pytest.importorskip("ccxt.async_support")

NOW_MS = START_MS + 8 * DAY_MS + 70 * MINUTE_MS + 1234


@pytest.fixture(scope="module")
def listing() -> Listing:
    return listing_of(simulate("BTCUSDT", start_ms=START_MS, days=9, seed=3))


@pytest.fixture
def exchange(listing: Listing) -> Iterator[FakeExchange]:
    with FakeExchange([listing], NOW_MS) as running:
        yield running


@pytest.fixture(params=["binanceusdm", "bybit"])
async def client(request: pytest.FixtureRequest, exchange: FakeExchange) -> AsyncIterator[Any]:
    library = getattr(ccxt, request.param)({"options": {"fetchMarkets": {"types": ["linear"]}}})
    hosts = ("https://fapi.binance.com", "https://api.bybit.com")
    for key, url in library.urls["api"].items():
        for host in hosts:
            library.urls["api"][key] = url = library.implode_hostname(url).replace(
                host, exchange.url
            )
    yield library
    await library.close()


async def test_it_lists_the_contract_and_tells_its_time(client: Any):
    market = (await client.load_markets())["BTC/USDT:USDT"]
    assert (market["id"], market["linear"], market["active"]) == ("BTCUSDT", True, True)
    assert await client.fetch_time() == NOW_MS


async def test_candles_come_as_they_were_put_in_and_the_last_is_in_progress(
    client: Any, listing: Listing
):
    since = NOW_MS - NOW_MS % M3.ms - 10 * M3.ms
    rows = await client.fetch_ohlcv("BTC/USDT:USDT", "3m", since=since, limit=100)
    expected = listing.candles[M3].between(since, NOW_MS + 1)
    assert [row[0] for row in rows] == expected.times.tolist()
    values = np.column_stack([column for _, column in expected.columns()])
    np.testing.assert_array_equal(np.array(rows)[:-1, 1:], values[:-1])
    assert rows[-1][1] == expected.open[-1]
    assert 0 < rows[-1][5] < expected.volume[-1]


async def test_funding_and_open_interest_come_as_they_were_put_in(client: Any, listing: Listing):
    since = NOW_MS - 3 * DAY_MS
    settled = await client.fetch_funding_rate_history("BTC/USDT:USDT", since=since, limit=100)
    expected = listing.funding.between(since, NOW_MS)
    assert [row["timestamp"] for row in settled] == expected.times.tolist()
    assert [row["fundingRate"] for row in settled] == expected.rate.tolist()
    samples = await client.fetch_open_interest_history(
        "BTC/USDT:USDT", "1h", since=since, limit=100, params={"until": NOW_MS}
    )
    interest = listing.open_interest.between(since, NOW_MS)
    assert [row["timestamp"] for row in samples] == interest.times.tolist()
    assert [row["openInterestAmount"] for row in samples] == interest.open_interest.tolist()


async def test_pages_have_the_size_of_the_venue(client: Any, exchange: FakeExchange):
    await client.load_markets()
    if client.id == "bybit":
        page = await client.publicGetV5MarketKline(
            {"category": "linear", "symbol": "BTCUSDT", "interval": "3", "limit": 1000}
        )
        times = [int(row[0]) for row in page["result"]["list"]]
        assert len(times) == 1000
        assert times == sorted(times, reverse=True)
        with pytest.raises(ccxt.BadRequest):
            await client.publicGetV5MarketKline(
                {"category": "linear", "symbol": "BTCUSDT", "interval": "3", "limit": 1001}
            )
    else:
        page = await client.fapiPublicGetKlines(
            {"symbol": "BTCUSDT", "interval": "3m", "startTime": START_MS, "limit": 1500}
        )
        assert [int(row[0]) for row in page] == [START_MS + i * M3.ms for i in range(1500)]
        with pytest.raises(ccxt.BadRequest):
            await client.fapiPublicGetKlines({"symbol": "BTCUSDT", "interval": "3m", "limit": 1501})


async def test_binance_refuses_open_interest_of_more_than_thirty_days_ago(exchange: FakeExchange):
    library = ccxt.binanceusdm()
    library.urls["api"]["fapiData"] = f"{exchange.url}/futures/data"
    try:
        with pytest.raises(ccxt.BadRequest, match="startTime"):
            await library.fapiDataGetOpenInterestHist(
                {"symbol": "BTCUSDT", "period": "5m", "startTime": NOW_MS - 31 * DAY_MS}
            )
    finally:
        await library.close()


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("too_many_requests", "DDoSProtection"),
        ("banned", "DDoSProtection"),
        ("server_error", "OperationFailed"),
        ("disconnect", "ExchangeNotAvailable"),
    ],
)
async def test_its_failures_are_those_of_the_venue(exchange: FakeExchange, kind: Any, error: str):
    library = ccxt.binanceusdm({"timeout": 500})
    library.urls["api"]["fapiPublic"] = f"{exchange.url}/fapi/v1"
    # aiohttp itself repeats a request whose connection was closed before a reply.
    exchange.faults.add(kind, retry_after_s=7, times=2 if kind == "disconnect" else 1)
    try:
        with pytest.raises(getattr(ccxt, error)):
            await library.fapiPublicGetTime()
        if kind in ("too_many_requests", "banned"):
            assert library.last_response_headers["Retry-After"] == "7"
        assert await library.fetch_time() == NOW_MS
    finally:
        await library.close()


async def test_bybit_says_too_many_visits_with_status_200(exchange: FakeExchange):
    library = ccxt.bybit()
    library.urls["api"]["public"] = exchange.url
    exchange.faults.add("bybit_limit")
    try:
        with pytest.raises(ccxt.RateLimitExceeded):
            await library.publicGetV5MarketTime()
    finally:
        await library.close()


async def test_its_clock_runs_on_after_a_request_that_came_late(listing: Listing) -> None:
    clock = SimulatedClock.starting(NOW_MS)
    with FakeExchange([listing], clock) as exchange:
        exchange.faults.add("late_request", late_ms=0)
        async with aiohttp.ClientSession(exchange.url) as session:
            # One is lost and comes late, with the repetition by aiohttp or with the second.
            for _ in range(2):
                with suppress(aiohttp.ServerDisconnectedError):
                    (await session.get("/v5/market/time")).close()
        assert exchange.faults.happened == 1
        assert exchange._late == []
        assert exchange.market.clock is clock
