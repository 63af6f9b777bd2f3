"""Each fault of the fake exchange's streams does what its name says."""

from __future__ import annotations

import json

import aiohttp
import pytest

from llm_trader.timeframe import M3
from tests.exchange.hearing import (
    NOW_MS,
    PATHS,
    SYMBOL,
    VENUES,
    Listener,
    at_times,
    candle_of,
    heard,
    listening,
    pushed,
    struck,
    topic,
)
from tests.exchange.server import FakeExchange


@pytest.mark.parametrize("venue", VENUES)
async def test_disturbed_updates_are_the_same_for_the_same_seed(venue: str, exchange: FakeExchange):
    calm = list(map(json.dumps, await heard(exchange, venue)))
    faults = exchange.stream_faults
    faults.shares = {"duplicate": 0.3}
    twice = list(map(json.dumps, await heard(exchange, venue)))
    assert len(calm) < len(twice)
    assert list(dict.fromkeys(twice)) == calm
    assert list(map(json.dumps, await heard(exchange, venue))) == twice
    faults.seed = 2
    assert list(map(json.dumps, await heard(exchange, venue))) != twice


@pytest.mark.parametrize("venue", VENUES)
async def test_late_updates_come_out_of_order(venue: str, exchange: FakeExchange):
    calm = await heard(exchange, venue)
    exchange.stream_faults.shares = {"late": 1.0}
    mixed = await heard(exchange, venue)
    times = [frame.get("E") or frame["ts"] for frame in mixed]
    assert times != sorted(times)
    assert all(frame in calm for frame in mixed)
    assert len(calm) - len(mixed) <= 1


@pytest.mark.parametrize("venue", VENUES)
async def test_a_stale_state_of_a_candle_comes_after_its_end(venue: str, exchange: FakeExchange):
    exchange.stream_faults.shares = {"stale": 1.0}
    states = [candle_of(frame) for frame in await heard(exchange, venue)]
    end = next(row for row, state in enumerate(states) if state[2])
    assert states[end + 1][0] == states[end][0]
    assert states[end + 1][2] is False
    assert float(states[end + 1][1][4]) < float(states[end][1][4])


async def test_a_lost_update_never_comes(exchange: FakeExchange):
    exchange.stream_faults.shares = {"lost": 1.0}
    assert len(await heard(exchange, "bybit")) == 1  # the one upon subscribing


async def subscribed(listener: Listener, venue: str) -> None:
    await listener.subscribe(venue, topic(venue, SYMBOL))
    await listener.frames()


@pytest.mark.parametrize("venue", VENUES)
async def test_a_disconnect_has_no_closing_frame(venue: str, exchange: FakeExchange):
    async with listening(exchange, PATHS[venue]) as listener:
        await subscribed(listener, venue)
        await struck(exchange, "disconnect")
        message = await listener.socket.receive(timeout=1)
        assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        assert listener.socket.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE
    assert exchange.sockets.connections == {}


@pytest.mark.parametrize("venue", VENUES)
async def test_a_half_open_connection_is_silent_and_a_new_one_is_not(
    venue: str, exchange: FakeExchange
):
    async with listening(exchange, PATHS[venue]) as listener:
        await subscribed(listener, venue)
        await struck(exchange, "half_open")
        assert await at_times(exchange, listener, NOW_MS, 2, M3.ms) == []
        with pytest.raises(TimeoutError):
            await listener.pong()
        await listener.say(op="ping")
        assert await listener.frames() == []
        assert not listener.socket.closed
        async with listening(exchange, PATHS[venue]) as other:
            assert (await other.pong()).type is aiohttp.WSMsgType.PONG
            await other.subscribe(venue, topic(venue, SYMBOL))
            assert len(await other.frames()) == 1


@pytest.mark.parametrize("venue", VENUES)
async def test_a_stalled_connection_answers_and_sends_no_candle(venue: str, exchange: FakeExchange):
    async with listening(exchange, PATHS[venue]) as listener:
        await subscribed(listener, venue)
        await struck(exchange, "stalled")
        assert await at_times(exchange, listener, NOW_MS, 2, M3.ms) == []
        assert (await listener.pong()).data == b"here"
        reply = await listener.subscribe(venue, topic(venue, "ETHUSDT"))
        assert reply.get("success", reply.get("result")) in (True, None)
        assert await listener.frames() == []


@pytest.mark.parametrize("venue", VENUES)
async def test_error_frames_and_broken_ones_come_between_candles(
    venue: str, exchange: FakeExchange
):
    async with listening(exchange, PATHS[venue]) as listener:
        await subscribed(listener, venue)
        await struck(exchange, "error_frame")
        error = (await listener.frames())[0]
        assert error.get("success") is False or error["error"]["code"] == -1000
        await struck(exchange, "garbled")
        with pytest.raises(json.JSONDecodeError):
            await listener.frames()
        assert await at_times(exchange, listener, NOW_MS, 1, M3.ms) != []


@pytest.mark.parametrize("status", [403, 429])
async def test_a_refused_upgrade_has_its_status_and_the_next_one_succeeds(
    status: int, exchange: FakeExchange
):
    exchange.stream_faults.refuse(status, retry_after_s=3)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with listening(exchange, PATHS["bybit"]):
            pass
    assert refused.value.status == status
    assert refused.value.headers is not None
    assert refused.value.headers["Retry-After"] == "3"
    async with listening(exchange, PATHS["bybit"]) as listener:
        assert (await listener.pong()).type is aiohttp.WSMsgType.PONG


async def test_planned_faults_strike_by_the_clock_of_the_exchange(exchange: FakeExchange):
    span = {"start_ms": NOW_MS + M3.ms, "end_ms": NOW_MS + 2 * M3.ms}
    faults = exchange.stream_faults
    plan = faults.plan(20, **span, seed=5)
    assert plan == faults.plan(20, **span, seed=5)
    assert plan != faults.plan(20, **span, seed=6)
    faults.plan(1, **span, seed=5, kinds=["refused_403"])
    async with listening(exchange, PATHS["bybit"]) as listener:
        exchange.market.now_ms = NOW_MS + M3.ms - 1
        assert (await listener.pong()).type is aiohttp.WSMsgType.PONG
        exchange.market.now_ms = NOW_MS + 2 * M3.ms
        await pushed(exchange)
        assert (await listener.socket.receive(timeout=1)).type is not aiohttp.WSMsgType.PONG
    with pytest.raises(aiohttp.WSServerHandshakeError):
        async with listening(exchange, PATHS["bybit"]):
            pass


async def test_a_venue_ahead_of_its_clock_closes_candles_earlier(exchange: FakeExchange):
    exchange.market.skew_ms = 5000
    frames = await heard(exchange, "binance", steps=1, step_ms=M3.ms - 5000)
    assert candle_of(frames[-1])[2]
    assert frames[-1]["E"] == NOW_MS + M3.ms
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{exchange.url}/fapi/v1/time") as reply,
    ):
        assert (await reply.json())["serverTime"] == NOW_MS + M3.ms


@pytest.mark.parametrize("venue", VENUES)
async def test_a_delisted_symbol_falls_silent_and_the_others_do_not(
    venue: str, exchange: FakeExchange
):
    async with listening(exchange, PATHS[venue]) as listener:
        await listener.subscribe(venue, topic(venue, SYMBOL), topic(venue, "ETHUSDT"))
        await listener.frames()
        exchange.market.delist(SYMBOL)
        frames = await at_times(exchange, listener, NOW_MS, 2, M3.ms)
        symbols = {frame.get("s") or frame["topic"].rpartition(".")[2] for frame in frames}
        assert symbols == {"ETHUSDT"}
    async with listening(exchange, PATHS[venue]) as listener:
        reply = await listener.subscribe(venue, topic(venue, SYMBOL))
        assert reply.get("success", False) is False
        assert await listener.frames() == []
