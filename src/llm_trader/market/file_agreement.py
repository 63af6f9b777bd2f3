"""Refuses a file of candles that the stored candles of another timeframe contradict.

A file with shifted times, or of another market, looks like any other; only other candles of the
same market show that it is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from llm_trader.errors import InvalidDataError
from llm_trader.market.candles import CandleSeries
from llm_trader.market.derived_candles import stored_span
from llm_trader.market.file_candles import FileCandles
from llm_trader.market.store import MarketStore
from llm_trader.market.timeframe_agreement import (
    SAME_MARKET,
    Comparison,
    Difference,
    Reader,
    Span,
    compare,
    divides,
    native_part,
    overlap,
    sampled_stretches,
)
from llm_trader.timeframe import HOUR_MS, Millis, Timeframe, iso8601

# Offsets of the time zones in which exports are written.
_SHIFTS_TRIED_MS: Final = [sign * h * HOUR_MS for h in range(1, 15) for sign in (1, -1)]
_LEAST_COMPARED_FOR_A_SHIFT: Final = 3


def refuse_contradicted(
    imported: FileCandles, symbol: str, shift_ms: Millis, store: MarketStore
) -> None:
    """Raises `InvalidDataError` with the first candles that differ from the stored ones.

    `shift_ms` was added to the times of the file when it was read. Of long overlaps a bounded part
    is compared; `data check` compares all.
    """
    for other in store.timeframes(symbol):
        if not (divides(other, imported.timeframe) or divides(imported.timeframe, other)):
            continue
        comparison = _compare(imported, symbol, other, store, 0)
        if comparison.disagrees:
            shifts = _agreeing_shifts(imported, symbol, other, store)
            remedy = _remedy(next(shifts, None), shift_ms, other)
            raise _contradicted(imported, other, comparison, remedy)


def _compare(
    imported: FileCandles, symbol: str, other: Timeframe, store: MarketStore, shift_ms: Millis
) -> Comparison:
    built = store.built_candles(symbol, other)

    def read_stored(start_ms: Millis, end_ms: Millis) -> CandleSeries:
        return native_part(store.candles(symbol, other, start_ms, end_ms), built)

    def read_file(start_ms: Millis, end_ms: Millis) -> CandleSeries:
        series = imported.between(start_ms - shift_ms, end_ms - shift_ms)
        return replace(series, open_time_ms=series.open_time_ms + shift_ms)

    file_span = imported.span[0] + shift_ms, imported.span[1] + shift_ms
    spans: tuple[Span | None, Span | None] = file_span, stored_span(store, symbol, other)
    readers: tuple[Reader, Reader] = read_file, read_stored
    coarse = max(imported.timeframe, other)
    if other < imported.timeframe:
        spans, readers = spans[::-1], readers[::-1]
    stretches = sampled_stretches(*overlap(*spans, coarse), coarse)
    return compare(*readers, stretches, SAME_MARKET)


def _contradicted(
    imported: FileCandles, other: Timeframe, comparison: Comparison, remedy: str
) -> InvalidDataError:
    fine, coarse = sorted((imported.timeframe, other))
    reason = (
        f"{coarse} candle that differs from its {fine} candles, of {comparison.compared} compared "
        f"with the stored {other} ones"
    )
    places = "; ".join(_place(imported, differs, fine, coarse) for differs in comparison.first)
    return InvalidDataError(
        imported.rows.name, {reason: comparison.differing}, places={reason: places}, remedy=remedy
    )


def _remedy(agreeing_ms: Millis | None, shift_ms: Millis, other: Timeframe) -> str:
    remedy = (
        "is the symbol right, and are the times those of open in UTC? Move them with --shift, or "
        f"remove the file; where the stored {other} candles are wrong, import into a new store"
    )
    if agreeing_ms is None:
        return remedy
    total_ms = shift_ms + agreeing_ms
    if total_ms == 0:
        return "the two agree without --shift"
    sign = "-" if total_ms < 0 else "+"
    return f"the two agree with --shift {sign}{Timeframe(abs(total_ms))}; {remedy}"


def _place(
    imported: FileCandles, difference: Difference, fine: Timeframe, coarse: Timeframe
) -> str:
    time_ms = difference.time_ms
    if imported.timeframe == fine and difference.field == "close":
        time_ms += coarse.ms - fine.ms
    place = imported.rows.place_of(time_ms)
    return f"{place}, {iso8601(difference.time_ms)}, {difference.values(fine, coarse)}"


def _agreeing_shifts(
    imported: FileCandles, symbol: str, other: Timeframe, store: MarketStore
) -> Iterator[Millis]:
    for shift_ms in _SHIFTS_TRIED_MS:
        if shift_ms % imported.timeframe.ms == 0:
            comparison = _compare(imported, symbol, other, store, shift_ms)
            if comparison.compared >= _LEAST_COMPARED_FOR_A_SHIFT and not comparison.differing:
                yield shift_ms
