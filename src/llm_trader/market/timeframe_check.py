"""Compares candles of a store, all or some, with those that its finer candles make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from llm_trader.market import checksums, record_ranges
from llm_trader.market.built_candles import read_built
from llm_trader.market.candles import CandleSeries
from llm_trader.market.stored_series import StoredSeries, candles_of
from llm_trader.market.timeframe_agreement import (
    SAME_MARKET,
    Comparison,
    Span,
    all_stretches,
    compare,
    divides,
    native_part,
    overlap,
)
from llm_trader.storage.environment import ReadTransaction
from llm_trader.timeframe import Millis, Timeframe


class Contradiction(NamedTuple):
    """Candles that differ from what finer ones of the same store make."""

    symbol: str
    fine: Timeframe
    coarse: Timeframe
    comparison: Comparison

    def __str__(self) -> str:
        compared = self.comparison
        return (
            f"{compared.differing} of {compared.compared} candles differ from their {self.fine} "
            f"candles ({compared.listed(self.fine, self.coarse)})"
        )


def contradictions(txn: ReadTransaction) -> Mapping[tuple[str, Timeframe], list[Contradiction]]:
    """For each symbol and timeframe, the finer timeframes that its candles differ from."""
    problems: dict[tuple[str, Timeframe], list[Contradiction]] = {}
    for symbol, stored in _timeframes(txn).items():
        for fine, coarse in _pairs(stored):
            comparison = _compare(txn, symbol, fine, coarse)
            if comparison.disagrees:
                found = Contradiction(symbol, fine, coarse, comparison)
                problems.setdefault((symbol, coarse), []).append(found)
    return problems


def contradictions_within(
    txn: ReadTransaction, symbol: str, spans: Mapping[Timeframe, Sequence[Span]]
) -> Iterator[Contradiction]:
    """As `contradictions` of a symbol, of the candles in some spans of some timeframes alone.

    Candles that the store itself built are left out, as at an import.
    """
    for fine, coarse in _pairs(_timeframes(txn).get(symbol, ())):
        within = [*spans.get(fine, ()), *spans.get(coarse, ())]
        if within:
            comparison = _compare(txn, symbol, fine, coarse, within)
            if comparison.disagrees:
                yield Contradiction(symbol, fine, coarse, comparison)


def _timeframes(txn: ReadTransaction) -> Mapping[str, list[Timeframe]]:
    timeframes: dict[str, list[Timeframe]] = {}
    for series in record_ranges.all_series(txn):
        if series.timeframe is not None:
            timeframes.setdefault(series.symbol, []).append(series.timeframe)
    return timeframes


def _pairs(stored: Sequence[Timeframe]) -> Iterator[tuple[Timeframe, Timeframe]]:
    for coarse in stored:
        for fine in sorted(timeframe for timeframe in stored if divides(timeframe, coarse)):
            yield fine, coarse


def _compare(
    txn: ReadTransaction,
    symbol: str,
    fine: Timeframe,
    coarse: Timeframe,
    within: Iterable[Span] | None = None,
) -> Comparison:
    finer, coarser = candles_of(symbol, fine), candles_of(symbol, coarse)
    whole = overlap(_span(txn, finer), _span(txn, coarser), coarse)
    if within is None:
        read_coarse = partial(_read, txn, coarser)
        spans = [whole]
    else:
        read_coarse = partial(_read_native, txn, coarser)
        spans = [_whole_candles(span, whole, coarse) for span in within]
    return compare(
        partial(_read, txn, finer),
        read_coarse,
        (part for span in spans for part in all_stretches(*span, fine, coarse)),
        SAME_MARKET,
    )


def _whole_candles(span: Span, whole: Span, coarse: Timeframe) -> Span:
    """The coarse candles that a span touches, of those that can be compared."""
    start_ms, end_ms = coarse.floor(span[0]), -coarse.floor(-span[1])
    return max(start_ms, whole[0]), min(end_ms, whole[1])


def _read(
    txn: ReadTransaction, series: StoredSeries[CandleSeries], start_ms: Millis, end_ms: Millis
) -> CandleSeries:
    return series.read(checksums.checked_items(txn, series, start_ms, end_ms))


def _read_native(
    txn: ReadTransaction, series: StoredSeries[CandleSeries], start_ms: Millis, end_ms: Millis
) -> CandleSeries:
    return native_part(_read(txn, series, start_ms, end_ms), read_built(txn, series))


def _span(txn: ReadTransaction, series: StoredSeries[CandleSeries]) -> Span | None:
    first, last = record_ranges.first_key(txn, series), record_ranges.last_key(txn, series)
    if first is None or last is None or series.timeframe is None:
        return None
    return series.time(first), series.time(last) + series.timeframe.ms
