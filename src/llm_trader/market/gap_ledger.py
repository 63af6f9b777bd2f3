"""The gaps of each candle series as records of their own, so that a write changes only its own.

    gap:DATABASE:SYMBOL:start_ms -> end_ms

The former ledger was one list per series at `gaps:DATABASE:SYMBOL`; `series_records` converts it.
"""

from __future__ import annotations

from typing import Any

from llm_trader.market import keys
from llm_trader.market.candles import Gap
from llm_trader.market.stored_series import StoredSeries
from llm_trader.storage.environment import ReadTransaction, WriteTransaction
from llm_trader.timeframe import MAX_TIME_MS, Millis


def read_gaps(
    txn: ReadTransaction,
    series: StoredSeries[Any],
    start_ms: Millis = 0,
    end_ms: Millis = MAX_TIME_MS,
) -> list[Gap]:
    """The recorded gaps with `start_ms <= start of the gap < end_ms`, in order."""
    gaps: list[Gap] = []
    cursor = txn.cursor(keys.META)
    if series.timeframe is None or cursor is None or not cursor.set_range(_key(series, start_ms)):
        return gaps
    end = _key(series, end_ms)
    for key, value in cursor:
        if key >= end:
            break
        gap_start_ms, gap_end_ms = int(key[-keys.TIME_DIGITS :]), int(value)
        missing = (gap_end_ms - gap_start_ms) // series.timeframe.ms
        gaps.append(Gap(gap_start_ms, gap_end_ms, missing))
    return gaps


def replace_gaps(
    txn: WriteTransaction, series: StoredSeries[Any], former: list[Gap], gaps: list[Gap]
) -> None:
    """Write what differs between the former gaps of a span and those that it has now."""
    # A long ledger stays as it is: only gaps that opened or closed are written.
    for gap in set(former).difference(gaps):
        txn.delete(keys.META, _key(series, gap.start_ms))
    changed = set(gaps).difference(former)
    txn.put_many(keys.META, [(_key(series, gap.start_ms), b"%d" % gap.end_ms) for gap in changed])


def _key(series: StoredSeries[Any], start_ms: Millis) -> bytes:
    return f"gap:{series}:{start_ms:0{keys.TIME_DIGITS}d}".encode()
