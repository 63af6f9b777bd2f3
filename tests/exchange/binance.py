"""The REST interface of Binance USD-M futures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_trader.errors import InvalidInputError
from llm_trader.timeframe import DAY_MS, Millis, Timeframe
from tests.exchange.listings import Listing, as_text
from tests.exchange.markets import Market

_FAR_AWAY_MS = 4_133_404_800_000  # the delivery of a perpetual contract


class RefusedError(Exception):
    """A reply with a status and a code of the venue."""

    def __init__(self, code: int, message: str) -> None:
        self.status, self.body = 400, {"code": code, "msg": message}


def answer(path: str, query: Mapping[str, str], market: Market) -> Any:
    """The JSON of one request; None where the path is of no endpoint."""
    match path:
        case "/fapi/v1/ping":
            return {}
        case "/fapi/v1/time":
            return {"serverTime": market.now_ms}
        case "/fapi/v1/ticker/price":
            symbol = _listing(query, market).symbol
            price = str(market.account.price(symbol))
            return {"symbol": symbol, "price": price, "time": market.now_ms}
        case "/fapi/v1/exchangeInfo":
            symbols = [_symbol(item, market.now_ms) for item in market.listings.values()]
            return {"timezone": "UTC", "serverTime": market.now_ms, "symbols": symbols}
        case "/fapi/v1/fundingInfo":
            return [_funding_info(item, market.now_ms) for item in market.listings.values()
                    if item.funding_hours(market.now_ms) != 8]  # fmt: skip
        case "/fapi/v1/klines":
            return _klines(_listing(query, market), query, market.now_ms)
        case "/fapi/v1/fundingRate":
            return _funding(_listing(query, market), query, market.now_ms)
        case "/futures/data/openInterestHist":
            return _open_interest(_listing(query, market), query, market.now_ms)
    return None


def _listing(query: Mapping[str, str], market: Market) -> Listing:
    listing = market.listings.get(query.get("symbol", ""))
    if listing is None:
        raise RefusedError(-1121, "Invalid symbol.")
    return listing


def _span(query: Mapping[str, str]) -> tuple[Millis | None, Millis | None]:
    start, end = query.get("startTime"), query.get("endTime")
    if start and end and int(start) > int(end):
        raise RefusedError(-1023, "Start time is greater than end time.")
    return (int(start) if start else None), (int(end) if end else None)


def _limit(query: Mapping[str, str], default: int, most: int) -> int:
    limit = int(query.get("limit", default))
    if not 1 <= limit <= most:
        raise RefusedError(-1130, "Data sent for parameter 'limit' is not valid.")
    return limit


def _page(rows: list[Any], limit: int, *, from_start: bool) -> list[Any]:
    """With a start, what follows it; else the newest."""
    return rows[:limit] if from_start else rows[-limit:]


def _symbol(listing: Listing, now_ms: Millis) -> dict[str, Any]:
    ended = listing.has_ended(now_ms)
    return {
        "symbol": listing.symbol,
        "pair": listing.symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": listing.ended_ms if ended else _FAR_AWAY_MS,
        "onboardDate": listing.listed_ms,
        "status": "SETTLING" if ended else "TRADING",
        "baseAsset": listing.base,
        "quoteAsset": listing.quote,
        "marginAsset": listing.quote,
        "pricePrecision": 2,
        "quantityPrecision": 3,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000",
             "tickSize": "0.01"},
            {"filterType": "LOT_SIZE", "minQty": "0.001", "maxQty": "1000", "stepSize": "0.001"},
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
        ],
        "orderTypes": ["LIMIT", "MARKET"],
        "timeInForce": ["GTC", "IOC"],
    }  # fmt: skip


def _funding_info(listing: Listing, now_ms: Millis) -> dict[str, Any]:
    return {
        "symbol": listing.symbol,
        "adjustedFundingRateCap": "0.02000000",
        "adjustedFundingRateFloor": "-0.02000000",
        "fundingIntervalHours": int(listing.funding_hours(now_ms)),
        "disclaimer": False,
    }


def _timeframe(text: str) -> Timeframe:
    try:
        return Timeframe.parse(text)
    except InvalidInputError:
        raise RefusedError(-1120, "Invalid interval.") from None


def _klines(listing: Listing, query: Mapping[str, str], now_ms: Millis) -> list[Any]:
    timeframe, limit = _timeframe(query.get("interval", "")), _limit(query, 500, 1500)
    start_ms, end_ms = _span(query)
    first_ms, last_ms = start_ms or 0, now_ms if end_ms is None else end_ms
    series = listing.candles.get(timeframe)
    if start_ms is not None and series is not None:
        # To write out the rows of all pages would take long.
        page = series.between(start_ms, None).times[:limit]
        last_ms = min(last_ms, int(page[-1])) if len(page) else last_ms
    klines = [
        [time_ms, *texts, time_ms + timeframe.ms - 1, "0", 1, "0", "0", "0"]
        for time_ms, texts in listing.candle_rows(timeframe, first_ms, last_ms, now_ms)
    ]
    return _page(klines, limit, from_start=start_ms is not None)


def _funding(listing: Listing, query: Mapping[str, str], now_ms: Millis) -> list[Any]:
    start_ms, end_ms = _span(query)
    end_ms = min(now_ms, now_ms if end_ms is None else end_ms)
    settled = listing.funding.between(start_ms, end_ms + 1)
    rows = [
        {
            "symbol": listing.symbol,
            "fundingTime": time_ms,
            "fundingRate": as_text(rate),
            "markPrice": "1.00000000",
        }
        for time_ms, rate in zip(settled.times.tolist(), settled.rate, strict=True)
    ]
    return _page(rows, _limit(query, 100, 1000), from_start=start_ms is not None)


def _open_interest(listing: Listing, query: Mapping[str, str], now_ms: Millis) -> list[Any]:
    period = _timeframe(query.get("period", ""))
    start_ms, end_ms = _span(query)
    if start_ms is not None and start_ms < now_ms - 30 * DAY_MS:
        raise RefusedError(-1130, "parameter 'startTime' is invalid.")
    oldest_ms = now_ms - 30 * DAY_MS
    samples = listing.open_interest.between(
        max(start_ms or 0, oldest_ms), min(now_ms, now_ms if end_ms is None else end_ms) + 1
    )
    rows = [
        {
            "symbol": listing.symbol,
            "sumOpenInterest": as_text(amount),
            "sumOpenInterestValue": as_text(value) if value == value else "0.00000000",
            "CMCCirculatingSupply": "0",
            "timestamp": time_ms,
        }
        for time_ms, amount, value in zip(
            samples.times.tolist(),
            samples.open_interest,
            samples.open_interest_value,
            strict=True,
        )
        if time_ms % period.ms == 0
    ]
    # Of more rows than fit, the newest.
    return rows[-_limit(query, 30, 500) :]
