"""Binance USD-M futures: pages begin at their start and are in the order of time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llm_trader.market.exchange.client import ExchangeClient
from llm_trader.market.exchange.instruments import Instrument
from llm_trader.market.exchange.replies import (
    MalformedReplyError,
    Page,
    a_dict,
    a_list,
    a_time,
    read_page,
)
from llm_trader.timeframe import DAY_MS, HOUR_MS, M5, MAX_TIME_MS, Millis, Timeframe

# 1500 would be sent, but weigh twice as much against the rate limit.
_CANDLES_OF_A_PAGE: Final = 1000
_SETTLEMENTS_OF_A_PAGE: Final = 1000
_SAMPLES_OF_A_PAGE: Final = 500
_CANDLE_KEYS: Final = {"open": 1, "high": 2, "low": 3, "close": 4, "volume": 5}
_INTERVALS: Final = (
    "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d",
)  # fmt: skip
# Perpetual contracts have a date of delivery in the year 2100.
_NEVER_MS: Final = 4_000_000_000_000
# Symbols that `fundingInfo` does not list settle three times a day.
_DEFAULT_FUNDING: Final = Timeframe(8 * HOUR_MS)
# Binance says "the latest 1 month". What is asked is 30 days old at most, and a little less, so
# that it is not older when the request arrives.
_REACH_MS: Final = 30 * DAY_MS - 10 * 60_000


class Binance:
    name = "binance"
    timeframes: Mapping[Timeframe, str] = {Timeframe.parse(name): name for name in _INTERVALS}
    open_interest_interval = M5
    open_interest_reach_ms: Millis | None = _REACH_MS

    def __init__(self, client: ExchangeClient) -> None:
        self._client = client

    async def close(self) -> None:
        await self._client.close()

    async def now_ms(self) -> Millis:
        return await self._client.ask(
            "fapiPublicGetTime",
            {},
            lambda reply: a_time(a_dict(reply, "time").get("serverTime"), "serverTime"),
            connecting=True,
        )

    async def instruments(self) -> list[Instrument]:
        intervals = await self._client.ask("fapiPublicGetFundingInfo", {}, _read_intervals)

        def read(reply: Any) -> list[Instrument]:
            symbols = a_list(a_dict(reply, "exchangeInfo").get("symbols"), "symbols")
            perpetual = [s for s in symbols if str(s.get("contractType")).endswith("PERPETUAL")]
            if not perpetual:
                raise MalformedReplyError("exchangeInfo lists no perpetual contract")
            return [_instrument(symbol, intervals) for symbol in perpetual]

        return await self._client.ask("fapiPublicGetExchangeInfo", {}, read)

    async def closed_instruments(self) -> list[Instrument]:
        """Those that Binance still lists are among `instruments`."""
        return []

    def candle_page_ms(self, timeframe: Timeframe) -> Millis:
        return _CANDLES_OF_A_PAGE * timeframe.ms

    async def candles(
        self, symbol: str, timeframe: Timeframe, start_ms: Millis, end_ms: Millis
    ) -> Page:
        parameters = {
            "symbol": symbol,
            "interval": self.timeframes[timeframe],
            "startTime": start_ms,
            "endTime": end_ms - 1,
            "limit": _CANDLES_OF_A_PAGE,
        }
        return await self._client.ask(
            "fapiPublicGetKlines",
            parameters,
            lambda reply: _forward_page(
                read_page(a_list(reply, "klines"), 0, _CANDLE_KEYS, end_ms),
                _CANDLES_OF_A_PAGE,
                start_ms,
                timeframe.ms,
            ),
        )

    async def funding(self, instrument: Instrument, start_ms: Millis, end_ms: Millis) -> Page:
        parameters = {
            "symbol": instrument.symbol,
            "startTime": start_ms,
            "endTime": end_ms - 1,
            "limit": _SETTLEMENTS_OF_A_PAGE,
        }
        keys = {"rate": "fundingRate"}
        return await self._client.ask(
            "fapiPublicGetFundingRate",
            parameters,
            lambda reply: _forward_page(
                read_page(a_list(reply, "fundingRate"), "fundingTime", keys, end_ms),
                _SETTLEMENTS_OF_A_PAGE,
                start_ms,
                1,
            ),
        )

    async def open_interest(self, symbol: str, start_ms: Millis, end_ms: Millis) -> Page:
        # Of a longer span Binance may send the end instead of the beginning.
        end_ms = min(end_ms, start_ms + _SAMPLES_OF_A_PAGE * self.open_interest_interval.ms)
        parameters = {
            "symbol": symbol,
            "period": str(self.open_interest_interval),
            "startTime": start_ms,
            "endTime": end_ms - 1,
            "limit": _SAMPLES_OF_A_PAGE,
        }
        keys = {"open_interest": "sumOpenInterest", "open_interest_value": "sumOpenInterestValue"}
        return await self._client.ask(
            "fapiDataGetOpenInterestHist",
            parameters,
            lambda reply: read_page(a_list(reply, "openInterestHist"), "timestamp", keys, end_ms),
        )


def _forward_page(page: Page, limit: int, start_ms: Millis, step_ms: Millis) -> Page:
    """A full page may be followed by more rows; it speaks for the time up to its last one."""
    if len(page.times) < limit:
        return page
    end_ms = int(page.times.max()) + step_ms
    if end_ms <= start_ms:
        raise MalformedReplyError("the rows lie before the time that was asked for")
    return page._replace(end_ms=min(end_ms, page.end_ms))


def _read_intervals(reply: Any) -> dict[str, Timeframe]:
    intervals = {}
    for row in a_list(reply, "fundingInfo"):
        hours = a_dict(row, "fundingInfo").get("fundingIntervalHours")
        if isinstance(hours, int) and 0 < hours <= 24:
            intervals[str(row.get("symbol"))] = Timeframe(hours * HOUR_MS)
    return intervals


def _instrument(row: dict[str, Any], intervals: Mapping[str, Timeframe]) -> Instrument:
    symbol = str(row.get("symbol"))
    listed_ms = a_time(row.get("onboardDate") or 0, "onboardDate")
    ended_ms = a_time(row.get("deliveryDate") or MAX_TIME_MS, "deliveryDate")
    return Instrument(
        symbol,
        str(row.get("baseAsset")),
        str(row.get("quoteAsset")),
        str(row.get("marginAsset") or row.get("quoteAsset")),
        listed_ms or None,
        None if ended_ms >= _NEVER_MS or row.get("status") == "TRADING" else ended_ms,
        intervals.get(symbol, _DEFAULT_FUNDING),
    )
