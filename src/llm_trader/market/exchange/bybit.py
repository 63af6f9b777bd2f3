"""Bybit v5, linear perpetual contracts: pages are newest first and reach back from their end.

A lone start is ignored, so each request asks for a span that fits a page, or reaches back until it
is complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_trader.errors import ExchangeError
from llm_trader.market.exchange.client import ExchangeClient
from llm_trader.market.exchange.instruments import Instrument
from llm_trader.market.exchange.replies import (
    Page,
    a_dict,
    a_list,
    a_time,
    joined,
    read_page,
)
from llm_trader.timeframe import H1, MINUTE_MS, Millis, Timeframe

_CANDLES_OF_A_PAGE: Final = 1000
_SETTLEMENTS_OF_A_PAGE: Final = 200
_SAMPLES_OF_A_PAGE: Final = 200
_INSTRUMENTS_OF_A_PAGE: Final = 1000
_CANDLE_KEYS: Final = {"open": 1, "high": 2, "low": 3, "close": 4, "volume": 5}
_INTERVALS: Final = {
    "1m": "1", "3m": "3", "5m": "5", "15m": "15", "30m": "30", "1h": "60", "2h": "120",
    "4h": "240", "6h": "360", "12h": "720", "1d": "D",
}  # fmt: skip


class Bybit:
    name = "bybit"
    timeframes: Mapping[Timeframe, str] = {Timeframe.parse(n): i for n, i in _INTERVALS.items()}
    open_interest_interval = H1
    open_interest_reach_ms: Millis | None = None

    def __init__(self, client: ExchangeClient) -> None:
        self._client = client

    async def close(self) -> None:
        await self._client.close()

    async def now_ms(self) -> Millis:
        return await self._client.ask(
            "publicGetV5MarketTime",
            {},
            lambda reply: a_time(a_dict(reply, "time").get("time"), "time"),
            connecting=True,
        )

    async def instruments(self) -> list[Instrument]:
        instruments = await self._listed("Trading")
        if not instruments:
            raise ExchangeError("bybit lists no perpetual contract; run the command again later")
        return instruments

    async def closed_instruments(self) -> list[Instrument]:
        """Contracts that are traded no more; their history can still be asked for."""
        return await self._listed("Closed")

    async def _listed(self, status: str) -> list[Instrument]:
        parameters: dict[str, Any] = {
            "category": "linear",
            "status": status,
            "limit": _INSTRUMENTS_OF_A_PAGE,
        }
        rows: list[dict[str, Any]] = []
        cursors: set[str] = set()
        while True:
            result = await self._ask("publicGetV5MarketInstrumentsInfo", parameters, lambda r: r)
            page = a_list(result.get("list"), "list")
            rows += page
            cursor = result.get("nextPageCursor")
            if not page or not cursor or cursor in cursors:
                break
            cursors.add(cursor)
            parameters["cursor"] = cursor
        return [_instrument(row) for row in rows if row.get("contractType") == "LinearPerpetual"]

    def candle_page_ms(self, timeframe: Timeframe) -> Millis:
        return _CANDLES_OF_A_PAGE * timeframe.ms

    async def candles(
        self, symbol: str, timeframe: Timeframe, start_ms: Millis, end_ms: Millis
    ) -> Page:
        end_ms = min(end_ms, start_ms + self.candle_page_ms(timeframe))
        parameters = {
            "category": "linear",
            "symbol": symbol,
            "interval": self.timeframes[timeframe],
            "start": start_ms,
            "end": end_ms - 1,
            "limit": _CANDLES_OF_A_PAGE,
        }
        page: Page = await self._ask(
            "publicGetV5MarketKline",
            parameters,
            lambda result: read_page(a_list(result.get("list"), "list"), 0, _CANDLE_KEYS, end_ms),
        )
        return page

    async def funding(self, instrument: Instrument, start_ms: Millis, end_ms: Millis) -> Page:
        # The interval may have been shorter; then the page is full and the next reaches further
        # back.
        interval_ms = instrument.funding_interval.ms
        end_ms = min(end_ms, start_ms + _SETTLEMENTS_OF_A_PAGE * interval_ms)
        parameters: dict[str, Any] = {
            "category": "linear",
            "symbol": instrument.symbol,
            "startTime": start_ms,
            "endTime": end_ms - 1,
            "limit": _SETTLEMENTS_OF_A_PAGE,
        }
        keys = {"rate": "fundingRate"}
        pages: list[Page] = []
        while True:
            page = await self._ask(
                "publicGetV5MarketFundingHistory",
                parameters,
                lambda result: read_page(
                    a_list(result.get("list"), "list"), "fundingRateTimestamp", keys, end_ms
                ),
            )
            pages.append(page)
            if len(page.times) < _SETTLEMENTS_OF_A_PAGE:
                break
            oldest_ms = int(page.times.min())
            if not start_ms < oldest_ms <= parameters["endTime"]:
                break
            parameters["endTime"] = oldest_ms - 1
        return joined(pages, end_ms)

    async def open_interest(self, symbol: str, start_ms: Millis, end_ms: Millis) -> Page:
        interval_ms = self.open_interest_interval.ms
        end_ms = min(end_ms, start_ms + _SAMPLES_OF_A_PAGE * interval_ms)
        parameters = {
            "category": "linear",
            "symbol": symbol,
            "intervalTime": str(self.open_interest_interval),
            "startTime": start_ms,
            "endTime": end_ms - 1,
            "limit": _SAMPLES_OF_A_PAGE,
        }
        keys = {"open_interest": "openInterest"}
        pages: list[Page] = []
        cursors: set[str] = set()
        while True:
            page, cursor = await self._ask(
                "publicGetV5MarketOpenInterest",
                parameters,
                lambda result: (
                    read_page(a_list(result.get("list"), "list"), "timestamp", keys, end_ms),
                    result.get("nextPageCursor"),
                ),
            )
            pages.append(page)
            # A full page has a cursor, also where nothing follows.
            reached = len(page.times) and int(page.times.min()) - interval_ms < start_ms
            if not len(page.times) or reached or not cursor or cursor in cursors:
                return joined(pages, end_ms)
            cursors.add(cursor)
            parameters["cursor"] = cursor

    async def _ask(self, endpoint: str, parameters: Mapping[str, Any], read: Any) -> Any:
        def read_result(reply: Any) -> Any:
            return read(a_dict(a_dict(reply, "reply").get("result"), "result"))

        return await self._client.ask(endpoint, parameters, read_result)


def _instrument(row: dict[str, Any]) -> Instrument:
    listed_ms = a_time(row.get("launchTime") or 0, "launchTime")
    ended_ms = a_time(row.get("deliveryTime") or 0, "deliveryTime")
    minutes = a_time(row.get("fundingInterval") or 480, "fundingInterval")
    return Instrument(
        str(row.get("symbol")),
        str(row.get("baseCoin")),
        str(row.get("quoteCoin")),
        str(row.get("settleCoin") or row.get("quoteCoin")),
        listed_ms or None,
        ended_ms or None,
        Timeframe(minutes * MINUTE_MS),
    )
