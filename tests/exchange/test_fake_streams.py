"""The plain frames of the fake exchange's WebSocket half."""

from __future__ import annotations

import aiohttp
import pytest

from llm_trader.timeframe import H4, M3
from tests.exchange.hearing import (
    NOW_MS,
    PATHS,
    SYMBOL,
    VENUES,
    at_times,
    candle_of,
    heard,
    listening,
    topic,
)
from tests.exchange.listings import Listing
from tests.exchange.server import FakeExchange

BINANCE_CANDLE_FIELDS = set("tTsifLochlvnxqVQB")
BYBIT_CANDLE_FIELDS = {
    "start", "end", "interval", "open", "close", "high", "low", "volume", "turnover", "confirm",
    "timestamp",
}  # fmt: skip


@pytest.mark.parametrize("venue", VENUES)
async def test_a_candle_approaches_its_final_state(
    venue: str, exchange: FakeExchange, listings: list[Listing]
):
    frames = await heard(exchange, venue, steps=6)
    states = [candle_of(frame) for frame in frames]
    of_first = [(texts, final) for open_ms, texts, final in states if open_ms == NOW_MS]
    assert [final for _, final in of_first] == [False] * (len(of_first) - 1) + [True]
    values = [list(map(float, texts)) for texts, _ in of_first]
    opens, highs, lows, closes, volumes = zip(*values, strict=True)
    assert len(set(opens)) == 1
    assert list(highs) == sorted(highs)
    assert list(lows) == sorted(lows, reverse=True)
    assert list(volumes) == sorted(volumes)
    assert len(set(closes)) > 3
    assert all(low <= close <= high for *_, high, low, close, _ in values)
    row = listings[0].candles[M3].between(NOW_MS, NOW_MS + 1)
    assert values[-1] == [column[0] for _, column in row.columns()]


async def test_frames_of_binance_have_the_fields_of_its_documents(exchange: FakeExchange):
    frames = await heard(exchange, "binance", steps=6)
    for frame in frames:
        assert frame.keys() == {"e", "E", "s", "k"}
        assert frame["k"].keys() == BINANCE_CANDLE_FIELDS
    final = next(frame for frame in frames if frame["k"]["x"])
    assert (final["e"], final["s"], final["k"]["i"]) == ("kline", SYMBOL, "3m")
    assert (final["E"], final["k"]["T"]) == (NOW_MS + M3.ms, NOW_MS + M3.ms - 1)
    assert final["k"]["L"] - final["k"]["f"] + 1 == final["k"]["n"]
    mean_price = float(final["k"]["q"]) / float(final["k"]["v"])
    assert float(final["k"]["l"]) <= mean_price <= float(final["k"]["h"])


async def test_frames_of_bybit_have_the_fields_of_its_documents(exchange: FakeExchange):
    frames = await heard(exchange, "bybit", steps=6)
    for frame in frames:
        assert (frame["topic"], frame["type"]) == ("kline.3.BTCUSDT", "snapshot")
        assert frame["data"][0].keys() == BYBIT_CANDLE_FIELDS
        assert frame["ts"] == frame["data"][0]["timestamp"]
    final = next(frame["data"][0] for frame in frames if frame["data"][0]["confirm"])
    assert (final["end"], final["timestamp"]) == (NOW_MS + M3.ms - 1, NOW_MS + M3.ms)


@pytest.mark.parametrize("venue", VENUES)
async def test_a_request_shows_the_unfinished_candle_as_the_stream_does(
    venue: str, exchange: FakeExchange
):
    exchange.market.now_ms = NOW_MS + M3.ms * 7 + 100_000
    async with listening(exchange, PATHS[venue]) as listener:
        for minutes, timeframe in ((3, M3), (240, H4)):
            await listener.subscribe(venue, topic(venue, SYMBOL, minutes))
            states = [candle_of(frame) for frame in await listener.frames()]
            open_ms = timeframe.floor(exchange.market.now_ms)
            assert states == [(open_ms, await requested(exchange, venue, minutes), False)]


async def requested(exchange: FakeExchange, venue: str, minutes: int) -> list[str]:
    """The newest candle by HTTP."""
    if venue == "binance":
        interval = f"{minutes}m" if minutes < 60 else f"{minutes // 60}h"
        path = f"/fapi/v1/klines?symbol={SYMBOL}&interval={interval}&limit=1"
    else:
        path = f"/v5/market/kline?category=linear&symbol={SYMBOL}&interval={minutes}&limit=1"
    async with aiohttp.ClientSession() as session, session.get(exchange.url + path) as reply:
        content = await reply.json()
    row = content[0] if venue == "binance" else content["result"]["list"][0]
    return list(row[1:6])


async def test_an_unfinished_candle_of_4h_is_made_of_those_of_3m(
    exchange: FakeExchange, listings: list[Listing]
):
    exchange.market.now_ms = NOW_MS + M3.ms * 7
    texts = await requested(exchange, "bybit", 240)
    part = listings[0].candles[M3].between(NOW_MS, NOW_MS + M3.ms * 7)
    following = listings[0].candles[M3].between(NOW_MS + M3.ms * 7, NOW_MS + M3.ms * 8)
    assert float(texts[1]) == max(part.high.max(), following.open[0])
    assert float(texts[2]) == min(part.low.min(), following.open[0])
    assert float(texts[3]) == following.open[0]
    assert float(texts[4]) == pytest.approx(part.volume.sum())


@pytest.mark.parametrize(
    "path", ["/market/stream?streams=", "/stream?streams=", "/market/ws/", "/ws/"]
)
async def test_binance_streams_are_also_named_in_the_path(path: str, exchange: FakeExchange):
    names = "btcusdt@kline_3m/ethusdt@kline_4h"
    async with listening(exchange, path + names) as listener:
        frames = await listener.frames()
        if "stream?" in path:
            assert [frame["stream"] for frame in frames] == names.split("/")
            frames = [frame["data"] for frame in frames]
        assert [frame["s"] for frame in frames] == [SYMBOL, "ETHUSDT"]
        assert (await listener.ask(method="LIST_SUBSCRIPTIONS", id=3)) == {
            "result": names.split("/"),
            "id": 3,
        }


@pytest.mark.parametrize(
    ("path", "retired", "comes"),
    [
        ("/market/ws", True, True),
        ("/public/ws", False, False),
        ("/private/ws", False, False),
        ("/ws", False, True),
        ("/ws", True, False),
    ],
)
async def test_binance_pushes_candles_only_where_they_belong_and_says_nothing_of_it(
    path: str, retired: bool, comes: bool, exchange: FakeExchange
):
    exchange.market.old_paths_retired = retired
    async with listening(exchange, path) as listener:
        reply = await listener.subscribe("binance", topic("binance", SYMBOL))
        assert reply == {"result": None, "id": 1}
        assert bool(await listener.frames()) == comes


async def test_binance_accepts_a_stream_that_does_not_exist_and_stays_silent(
    exchange: FakeExchange,
):
    async with listening(exchange, PATHS["binance"]) as listener:
        wrong = ["nopeusdt@kline_3m", "BTCUSDT@kline_3m", "btcusdt@kline_7x"]
        assert await listener.subscribe("binance", *wrong) == {"result": None, "id": 1}
        assert await listener.frames() == []
        for message, text in (
            ({"method": "JOIN", "id": 1}, "unknown variant JOIN"),
            ({"method": "SUBSCRIBE", "params": [], "id": 1}, "non-zero length"),
            ({"method": "SUBSCRIBE", "params": wrong}, "unsigned integer"),
        ):
            error = (await listener.ask(**message))["error"]
            assert error["code"] == 2
            assert text in error["msg"]


async def test_binance_cuts_off_who_sends_more_than_ten_messages_a_second(exchange: FakeExchange):
    async with listening(exchange, PATHS["binance"]) as listener:
        for number in range(11):
            await listener.say(method="LIST_SUBSCRIPTIONS", id=number)
        assert len(await listener.frames()) == 10
        assert listener.socket.close_code == aiohttp.WSCloseCode.POLICY_VIOLATION


async def test_bybit_refuses_a_whole_subscription_for_one_wrong_topic(exchange: FakeExchange):
    async with listening(exchange, PATHS["bybit"]) as listener:
        right, wrong = topic("bybit", SYMBOL), topic("bybit", "NOPEUSDT")
        reply = await listener.subscribe("bybit", right, wrong)
        assert (reply["success"], reply["op"], reply["req_id"]) == (False, "subscribe", "1")
        assert reply["ret_msg"] == f"error:handler not found,topic:{wrong}"
        assert await listener.frames() == []
        assert (await listener.subscribe("bybit", right))["success"]
        assert len(await listener.frames()) == 1
        again = await listener.subscribe("bybit", right)
        assert again["ret_msg"] == f"error:already subscribed,topic:{right}"


async def test_bybit_answers_pings_in_its_own_way(exchange: FakeExchange):
    async with listening(exchange, PATHS["bybit"]) as listener:
        reply = await listener.ask(op="ping", req_id="7")
        assert (reply["success"], reply["ret_msg"], reply["op"]) == (True, "pong", "ping")
        assert (await listener.ask(op="dance"))["success"] is False


@pytest.mark.parametrize("venue", VENUES)
async def test_what_is_unsubscribed_comes_no_more(venue: str, exchange: FakeExchange):
    name = topic(venue, SYMBOL)
    async with listening(exchange, PATHS[venue]) as listener:
        await listener.subscribe(venue, name)
        await listener.frames()
        if venue == "binance":
            await listener.ask(method="UNSUBSCRIBE", params=[name], id=2)
        else:
            await listener.ask(op="unsubscribe", args=[name])
        assert await at_times(exchange, listener, NOW_MS, 2, M3.ms) == []
