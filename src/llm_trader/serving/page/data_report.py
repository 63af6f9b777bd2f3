"""How complete the series of a symbol are: their extent, gaps, refused rows and jumps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from llm_trader.errors import SymbolNotFoundError
from llm_trader.market.jumps import Jump
from llm_trader.market.store import MarketStore
from llm_trader.market.stored_series import StoredSeries
from llm_trader.rpc.params import Timeout
from llm_trader.serving.wire import Symbol
from llm_trader.timeframe import Millis, Timeframe

# A person reads the newest ones; `llm-trader data info --json` has all.
_LISTED: Final = 20
# Reading so many candles takes some 10 ms, after which others have their turn.
_CANDLES_AT_ONCE: Final = 5000


class SeriesReportParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    symbol: Symbol
    timeout_ms: Timeout | None = None


class Stretch(msgspec.Struct, frozen=True):
    """Rows from `start` to before `end`."""

    start: Annotated[Millis, Meta(description="UTC milliseconds.")]
    end: Annotated[Millis, Meta(description="UTC milliseconds.")]
    reason: Annotated[str | None, Meta(description="Why, where that is known.")] = None


class SeriesReport(msgspec.Struct, frozen=True):
    series: Annotated[str, Meta(description="Such as `candles_3m`, `funding` or `open_interest`.")]
    first: Annotated[Millis, Meta(description="Time of its first row, UTC milliseconds.")]
    last: Annotated[Millis, Meta(description="Time of its last row, UTC milliseconds.")]
    missing: Annotated[
        int | None, Meta(description="Missing candles; null of samples and where nobody counted.")
    ]
    gaps: Annotated[int, Meta(description="Number of gaps of candles.")]
    newest_gaps: Annotated[list[Stretch], Meta(description="The newest of them, up to 20.")]
    refused: Annotated[
        int, Meta(description="Stretches of rows that the exchange sent and that were refused.")
    ]
    newest_refused: Annotated[list[Stretch], Meta(description="The newest of them, up to 20.")]


class SeriesJump(msgspec.Struct, frozen=True):
    timeframe: Annotated[str, Meta(description="Of the candles that jump, such as 5m.")]
    time: Annotated[
        Millis, Meta(description="Open time of the candle at which it arrives, UTC milliseconds.")
    ]
    price: Annotated[
        str, Meta(description="Which price of this candle jumped: open, high, low or close.")
    ]
    before: Annotated[float, Meta(description="What it is compared with, quote currency.")]
    after: Annotated[float, Meta(description="The price that jumped, quote currency.")]
    ratio: Annotated[float, Meta(description="By which factor.")]


class SeriesReportResult(msgspec.Struct, frozen=True):
    """`jumps` lists the newest that nobody has accepted: no window or outcome crosses one."""

    symbol: Annotated[str, Meta(description="The symbol.")]
    series: Annotated[list[SeriesReport], Meta(description="Its series.")]
    unaccepted_jumps: Annotated[int, Meta(description="Jumps of prices that nobody accepted.")]
    jumps: Annotated[list[SeriesJump], Meta(description="The newest of them, up to 20.")]


def series_of(store: MarketStore, symbol: str) -> list[StoredSeries[Any]]:
    """Raises `SymbolNotFoundError`."""
    found = [series for series in store.series() if series.symbol == symbol]
    if not found:
        raise SymbolNotFoundError(symbol, store.symbols())
    return found


def report_series(store: MarketStore, series: StoredSeries[Any]) -> SeriesReport | None:
    """None of a series that has just lost its last row."""
    extents = [e for e in store.series_extents() if e.symbol == series.symbol]
    missing = next((e.missing for e in extents if e.series == series.database), None)
    first_ms, refused = store.first_time_ms(series), store.refused_rows(series)
    ages = [age for age in store.series_ages(None) if age.symbol == series.symbol]
    newest_ms = next((age.newest for age in ages if age.series == series.database), None)
    if first_ms is None or newest_ms is None:
        return None
    timeframe = series.timeframe
    gaps = [] if timeframe is None else store.gaps(series.symbol, timeframe)
    return SeriesReport(
        series.database,
        first_ms,
        newest_ms - (timeframe.ms if timeframe else 0),
        missing,
        len(gaps),
        [Stretch(gap.start_ms, gap.end_ms) for gap in gaps[-_LISTED:]],
        len(refused),
        [Stretch(span.start_ms, span.end_ms, span.reason) for span in refused[-_LISTED:]],
    )


def jumps_in_parts(store: MarketStore, symbol: str) -> Iterator[list[Jump]]:
    """The jumps of all candles that nobody has accepted, a part of the candles at a time."""
    for timeframe in store.timeframes(symbol):
        extent = store.first_and_last_ms(symbol, timeframe)
        if extent is not None:
            yield from _jumps_of(store, symbol, timeframe, *extent)


def _jumps_of(
    store: MarketStore, symbol: str, timeframe: Timeframe, first_ms: Millis, last_ms: Millis
) -> Iterator[list[Jump]]:
    step_ms = _CANDLES_AT_ONCE * timeframe.ms
    for start_ms in range(first_ms, last_ms + 1, step_ms):
        candles = store.candles(symbol, timeframe, start_ms, start_ms + step_ms)
        yield store.jumps_of_part(symbol, candles) if len(candles) else []


def newest_jumps(jumps: list[Jump]) -> tuple[int, list[SeriesJump]]:
    """How many there are, and the newest; both sides of a part find the jump between parts."""
    different = {(jump.timeframe, jump.time_ms): jump for jump in jumps}
    ordered = sorted(different.values(), key=lambda jump: jump.time_ms)
    return len(ordered), [
        SeriesJump(j.timeframe, j.time_ms, j.price, j.before, j.after, j.ratio)
        for j in ordered[-_LISTED:]
    ]
