"""Stored series, a page at a time: parameters and results on the wire, and how they are read."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from llm_trader.errors import InvalidInputError, SymbolNotFoundError
from llm_trader.market.store import MarketStore
from llm_trader.market.stored_series import (
    StoredSeries,
    candles_of,
    funding_of,
    open_interest_of,
)
from llm_trader.rpc.params import Timeout
from llm_trader.serving.wire import Symbol, Timestamp
from llm_trader.timeframe import HOUR_MS, Millis, Timeframe

# As many as exchanges give. A page of candles takes 2 ms and 70 KB, about as much as a query.
MAX_ROWS: Final = 1000
_NextStart = Annotated[
    Millis | None,
    Meta(description="`start` of the next page; null where this one is the last."),
]


class SeriesParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    symbol: Symbol
    start: Timestamp
    end: Annotated[Timestamp, Meta(description="UTC milliseconds; rows before it are returned")]
    limit: Annotated[int, Meta(ge=1, le=MAX_ROWS, description="Most rows of a page.")] = MAX_ROWS
    timeout_ms: Timeout | None = None


class CandlesParams(SeriesParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    timeframe: Annotated[str, Meta(description="such as 5m or 4h")]


class CandlesResult(msgspec.Struct, frozen=True):
    """Candles as columns, in the order of time; missing ones are left out."""

    open_time: Annotated[list[Millis], Meta(description="When they open, UTC milliseconds.")]
    open: Annotated[list[float], Meta(description="First prices, quote currency.")]
    high: Annotated[list[float], Meta(description="Highest prices.")]
    low: Annotated[list[float], Meta(description="Lowest prices.")]
    close: Annotated[list[float], Meta(description="Last prices.")]
    volume: Annotated[list[float], Meta(description="Volumes, base units.")]
    next_start: _NextStart


class FundingResult(msgspec.Struct, frozen=True):
    """Settlements as columns, in the order of time."""

    time: Annotated[list[Millis], Meta(description="When they were settled, UTC milliseconds.")]
    rate: Annotated[list[float], Meta(description="Rates, fractions per settlement.")]
    interval_hours: Annotated[list[float], Meta(description="Hours until the next settlement.")]
    next_start: _NextStart


class OpenInterestResult(msgspec.Struct, frozen=True):
    """Samples as columns, in the order of time."""

    time: Annotated[list[Millis], Meta(description="When they were taken, UTC milliseconds.")]
    open_interest: Annotated[list[float], Meta(description="Open interest, base units.")]
    open_interest_value: Annotated[
        list[float | None], Meta(description="The same in USD; null where the source had none.")
    ]
    next_start: _NextStart


def read_candles(store: MarketStore, params: CandlesParams) -> CandlesResult:
    timeframe = Timeframe.parse(params.timeframe)
    series = candles_of(params.symbol, timeframe)
    if store.first_time_ms(series) is None:
        _check_symbol(store, params.symbol)
        stored = ", ".join(map(str, store.timeframes(params.symbol))) or "none"
        raise InvalidInputError(
            f"timeframe: the store has no {timeframe} candles of {params.symbol}; stored: {stored}"
        )
    return CandlesResult(*_page(store, series, params, timeframe.ms))


def read_funding(store: MarketStore, params: SeriesParams) -> FundingResult:
    _check_symbol(store, params.symbol)
    series = funding_of(params.symbol)
    first_ms = store.first_time_ms(series, params.start)
    step_ms = HOUR_MS
    if first_ms is not None:
        (hours,) = store.funding(params.symbol, first_ms, first_ms + 1).interval_hours
        step_ms = round(float(hours) * HOUR_MS)
    return FundingResult(*_page(store, series, params, step_ms))


def read_open_interest(store: MarketStore, params: SeriesParams) -> OpenInterestResult:
    _check_symbol(store, params.symbol)
    step_ms = store.open_interest_interval_ms(params.symbol)
    return OpenInterestResult(*_page(store, open_interest_of(params.symbol), params, step_ms))


def _check_symbol(store: MarketStore, symbol: str) -> None:
    available = store.symbols()
    if symbol not in available:
        raise SymbolNotFoundError(symbol, available)


def _page(
    store: MarketStore, series: StoredSeries[Any], params: SeriesParams, step_ms: Millis
) -> list[Any]:
    """The columns of a page, times first, and where the next one starts.

    It reads no more than a page: not even where the range is years.
    """
    if params.end <= params.start:
        raise InvalidInputError("end: must be after start")
    first_ms = store.first_time_ms(series, params.start)
    if first_ms is None or first_ms >= params.end:
        first_ms = params.end
    rows = store.read_series(series, first_ms, min(params.end, first_ms + params.limit * step_ms))
    if len(rows) > params.limit:
        rows = rows.between(None, int(rows.times[params.limit]))
    next_ms = store.first_time_ms(series, int(rows.times[-1]) + 1) if len(rows) else None
    is_last = next_ms is None or next_ms >= params.end
    columns = [rows.times, *(column for _, column in rows.columns())]
    return [*(column.tolist() for column in columns), None if is_last else next_ms]
