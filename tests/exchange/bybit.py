"""The REST interface of Bybit v5, category `linear`: newest first, reaching back from the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_trader.timeframe import DAY_MS, HOUR_MS, MINUTE_MS, Millis, Timeframe
from tests.exchange.listings import Listing, as_text
from tests.exchange.markets import Market

KLINE_INTERVALS = {
    "1": 1, "3": 3, "5": 5, "15": 15, "30": 30, "60": 60, "120": 120, "240": 240, "360": 360,
    "720": 720, "D": 1440,
}  # fmt: skip
_SAMPLE_INTERVALS = {
    "5min": 5 * MINUTE_MS, "15min": 15 * MINUTE_MS, "30min": 30 * MINUTE_MS, "1h": HOUR_MS,
    "4h": 4 * HOUR_MS, "1d": DAY_MS,
}  # fmt: skip


class RefusedError(Exception):
    """A reply with status 200 and a code of the venue."""

    def __init__(self, code: int, message: str) -> None:
        self.status, self.body = 200, {"retCode": code, "retMsg": message, "result": {}}


def answer(path: str, query: Mapping[str, str], market: Market) -> Any:
    """The JSON of one request; None where the path is of no endpoint."""
    now_ms = market.now_ms
    if path == "/v5/market/time":
        seconds = str(now_ms // 1000)
        return _reply({"timeSecond": seconds, "timeNano": f"{now_ms}000000"}, now_ms)
    endpoints = {
        "/v5/market/instruments-info": _instruments,
        "/v5/market/tickers": _tickers,
        "/v5/market/kline": _kline,
        "/v5/market/funding/history": _funding,
        "/v5/market/open-interest": _open_interest,
    }
    if path not in endpoints:
        return None
    if query.get("category") != "linear":
        raise RefusedError(10001, "params error: Category is invalid")
    return _reply({"category": "linear", **endpoints[path](query, market)}, now_ms)


def _reply(result: Any, now_ms: Millis) -> dict[str, Any]:
    return {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": now_ms}


def _listing(query: Mapping[str, str], market: Market) -> Listing:
    listing = market.listings.get(query.get("symbol", ""))
    if listing is None:
        raise RefusedError(10001, "params error: Symbol Is Invalid")
    return listing


def _limit(query: Mapping[str, str], default: int, most: int) -> int:
    limit = int(query.get("limit", default))
    if not 1 <= limit <= most:
        raise RefusedError(10001, "params error: Limit is invalid")
    return limit


def _instruments(query: Mapping[str, str], market: Market) -> dict[str, Any]:
    status = query.get("status", "Trading")
    rows = [
        _instrument(listing, market.now_ms)
        for listing in market.listings.values()
        if ("Closed" if listing.has_ended(market.now_ms) else "Trading") == status
        and query.get("symbol", listing.symbol) == listing.symbol
    ]
    limit, first = _limit(query, 500, 1000), int(query.get("cursor") or 0)
    limit = min(limit, market.instruments_of_a_page)
    following = first + limit
    cursor = str(following) if following < len(rows) else ""
    return {"list": rows[first:following], "nextPageCursor": cursor}


def _instrument(listing: Listing, now_ms: Millis) -> dict[str, Any]:
    ended = listing.has_ended(now_ms)
    return {
        "symbol": listing.symbol,
        "contractType": "LinearPerpetual",
        "status": "Closed" if ended else "Trading",
        "baseCoin": listing.base,
        "quoteCoin": listing.quote,
        "settleCoin": listing.quote,
        "launchTime": str(listing.listed_ms),
        "deliveryTime": str(listing.ended_ms) if ended else "0",
        "deliveryFeeRate": "",
        "priceScale": "2",
        "leverageFilter": {"minLeverage": "1", "maxLeverage": "100.00", "leverageStep": "0.01"},
        "priceFilter": {"minPrice": "0.10", "maxPrice": "1999999.80", "tickSize": "0.10"},
        "lotSizeFilter": {
            "maxOrderQty": "1190", "minOrderQty": "0.001", "qtyStep": "0.001",
            "minNotionalValue": "5",
        },
        "unifiedMarginTrade": True,
        "fundingInterval": int(listing.funding_hours(now_ms) * 60),
    }  # fmt: skip


def _tickers(query: Mapping[str, str], market: Market) -> dict[str, Any]:
    symbol = _listing(query, market).symbol
    return {"list": [{"symbol": symbol, "lastPrice": str(market.account.price(symbol))}]}


def _kline(query: Mapping[str, str], market: Market) -> dict[str, Any]:
    listing, minutes = _listing(query, market), KLINE_INTERVALS.get(query.get("interval", ""))
    if minutes is None:
        raise RefusedError(10001, "params error: Invalid period!")
    start_ms, end_ms = int(query.get("start", 0)), int(query.get("end", market.now_ms))
    rows = listing.candle_rows(Timeframe(minutes * MINUTE_MS), start_ms, end_ms, market.now_ms)
    newest_first = [[str(time_ms), *texts, "0"] for time_ms, texts in reversed(rows)]
    return {"symbol": listing.symbol, "list": newest_first[: _limit(query, 200, 1000)]}


def _funding(query: Mapping[str, str], market: Market) -> dict[str, Any]:
    listing = _listing(query, market)
    if "startTime" in query and "endTime" not in query:
        raise RefusedError(10001, "params error: endTime is required with startTime")
    start_ms, end_ms = int(query.get("startTime", 0)), int(query.get("endTime", market.now_ms))
    settled = listing.funding.between(start_ms, min(end_ms, market.now_ms) + 1)
    rows = [
        {
            "symbol": listing.symbol,
            "fundingRate": as_text(rate),
            "fundingRateTimestamp": str(time_ms),
        }
        for time_ms, rate in zip(settled.times.tolist(), settled.rate, strict=True)
    ]
    return {"list": rows[::-1][: _limit(query, 200, 200)]}


def _open_interest(query: Mapping[str, str], market: Market) -> dict[str, Any]:
    listing = _listing(query, market)
    interval_ms = _SAMPLE_INTERVALS.get(query.get("intervalTime", ""))
    if interval_ms is None:
        raise RefusedError(10001, "params error: IntervalTime is invalid")
    end_ms = min(int(query.get("endTime", market.now_ms)), market.now_ms)
    # A lone start is ignored.
    start_ms = int(query["startTime"]) if {"startTime", "endTime"} <= query.keys() else 0
    if cursor := query.get("cursor"):
        end_ms = int(cursor)
    samples = listing.open_interest.between(start_ms, end_ms + 1)
    rows = [
        {"openInterest": as_text(amount), "timestamp": str(time_ms)}
        for time_ms, amount in zip(samples.times.tolist(), samples.open_interest, strict=True)
        if time_ms % interval_ms == 0
    ][::-1]
    page = rows[: _limit(query, 50, 200)]
    # A full page has a cursor, also where nothing follows.
    full = len(page) == _limit(query, 50, 200)
    following = str(int(page[-1]["timestamp"]) - 1) if full else ""
    return {"symbol": listing.symbol, "list": page, "nextPageCursor": following}
