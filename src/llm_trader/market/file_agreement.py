"""Refuses a file of candles that the stored candles of another timeframe contradict.

A file with shifted times, or of another market, looks like any other; only other candles of the
same market show that it is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, NamedTuple

from llm_trader.errors import InvalidDataError
from llm_trader.market.candles import CandleSeries
from llm_trader.market.derived_candles import stored_span
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


class ImportedCandles(NamedTuple):
    """The candles of a file: how to read them, and where the one of a time is in the file."""

    name: str
    symbol: str
    timeframe: Timeframe
    span: Span
    read: Reader
    place: Callable[[Millis], str]
    shift_ms: Millis  # that its times were moved by already


def refuse_contradicted(imported: ImportedCandles, store: MarketStore) -> None:
    """Raises `InvalidDataError` with the first candles that differ from the stored ones.

    Of long overlaps a bounded part is compared; `data check` compares all.
    """
    for other in store.timeframes(imported.symbol):
        if not (divides(other, imported.timeframe) or divides(imported.timeframe, other)):
            continue
        comparison = _compare(imported, other, store, 0)
        if comparison.disagrees:
            raise _contradicted(imported, other, store, comparison)


def _compare(
    imported: ImportedCandles, other: Timeframe, store: MarketStore, shift_ms: Millis
) -> Comparison:
    built = store.built_candles(imported.symbol, other)

    def read_stored(start_ms: Millis, end_ms: Millis) -> CandleSeries:
        return native_part(store.candles(imported.symbol, other, start_ms, end_ms), built)

    def read_file(start_ms: Millis, end_ms: Millis) -> CandleSeries:
        series = imported.read(start_ms - shift_ms, end_ms - shift_ms)
        return replace(series, open_time_ms=series.open_time_ms + shift_ms)

    file_span = imported.span[0] + shift_ms, imported.span[1] + shift_ms
    spans: tuple[Span | None, Span | None] = file_span, stored_span(store, imported.symbol, other)
    readers: tuple[Reader, Reader] = read_file, read_stored
    coarse = max(imported.timeframe, other)
    if other < imported.timeframe:
        spans, readers = spans[::-1], readers[::-1]
    stretches = sampled_stretches(*overlap(*spans, coarse), coarse)
    return compare(*readers, stretches, SAME_MARKET)


def _contradicted(
    imported: ImportedCandles, other: Timeframe, store: MarketStore, comparison: Comparison
) -> InvalidDataError:
    fine, coarse = sorted((imported.timeframe, other))
    reason = (
        f"{coarse} candle that differs from its {fine} candles, of {comparison.compared} compared "
        f"with the stored {other} ones"
    )
    places = "; ".join(
        _place(imported, difference, fine, coarse) for difference in comparison.first
    )
    remedy = (
        "is the symbol right, and are the times those of open in UTC? Move them with --shift, or "
        f"remove the file; where the stored {other} candles are wrong, import into a new store"
    )
    if (shift := next(_agreeing_shifts(imported, other, store), None)) is not None:
        total_ms = imported.shift_ms + shift
        sign = "-" if total_ms < 0 else "+"
        remedy = f"the two agree with --shift {sign}{Timeframe(abs(total_ms))}; {remedy}"
        if total_ms == 0:
            remedy = "the two agree without --shift"
    return InvalidDataError(
        imported.name, {reason: comparison.differing}, places={reason: places}, remedy=remedy
    )


def _place(
    imported: ImportedCandles, difference: Difference, fine: Timeframe, coarse: Timeframe
) -> str:
    time_ms = difference.time_ms
    if imported.timeframe == fine and difference.field == "close":
        time_ms += coarse.ms - fine.ms
    place = imported.place(time_ms)
    return f"{place}, {iso8601(difference.time_ms)}, {difference.values(fine, coarse)}"


def _agreeing_shifts(
    imported: ImportedCandles, other: Timeframe, store: MarketStore
) -> Iterator[Millis]:
    for shift_ms in _SHIFTS_TRIED_MS:
        if shift_ms % imported.timeframe.ms == 0:
            comparison = _compare(imported, other, store, shift_ms)
            if comparison.compared >= _LEAST_COMPARED_FOR_A_SHIFT and not comparison.differing:
                yield shift_ms
