"""Compares all candles of a store with those that its finer candles make."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from llm_trader.market import checksums, record_ranges
from llm_trader.market.candles import CandleSeries
from llm_trader.market.stored_series import StoredSeries, candles_of
from llm_trader.market.timeframe_agreement import (
    SAME_MARKET,
    Comparison,
    Span,
    all_stretches,
    compare,
    divides,
    overlap,
)
from llm_trader.storage.environment import ReadTransaction
from llm_trader.timeframe import Millis, Timeframe


def contradictions(txn: ReadTransaction) -> Mapping[tuple[str, Timeframe], list[str]]:
    """For each symbol and timeframe, the finer timeframes that its candles differ from."""
    timeframes: dict[str, list[Timeframe]] = {}
    for series in record_ranges.all_series(txn):
        if series.timeframe is not None:
            timeframes.setdefault(series.symbol, []).append(series.timeframe)
    problems: dict[tuple[str, Timeframe], list[str]] = {}
    for symbol, stored in timeframes.items():
        for coarse in stored:
            for fine in sorted(timeframe for timeframe in stored if divides(timeframe, coarse)):
                comparison = _compare(txn, symbol, fine, coarse)
                if comparison.disagrees:
                    problems.setdefault((symbol, coarse), []).append(
                        f"{comparison.differing} of {comparison.compared} candles differ from "
                        f"their {fine} candles ({comparison.listed(fine, coarse)})"
                    )
    return problems


def _compare(txn: ReadTransaction, symbol: str, fine: Timeframe, coarse: Timeframe) -> Comparison:
    finer, coarser = candles_of(symbol, fine), candles_of(symbol, coarse)
    whole = overlap(_span(txn, finer), _span(txn, coarser), coarse)
    return compare(
        partial(_read, txn, finer),
        partial(_read, txn, coarser),
        all_stretches(*whole, fine, coarse),
        SAME_MARKET,
    )


def _read(
    txn: ReadTransaction, series: StoredSeries[CandleSeries], start_ms: Millis, end_ms: Millis
) -> CandleSeries:
    return series.read(checksums.checked_items(txn, series, start_ms, end_ms))


def _span(txn: ReadTransaction, series: StoredSeries[CandleSeries]) -> Span | None:
    first, last = record_ranges.first_key(txn, series), record_ranges.last_key(txn, series)
    if first is None or last is None or series.timeframe is None:
        return None
    return series.time(first), series.time(last) + series.timeframe.ms
