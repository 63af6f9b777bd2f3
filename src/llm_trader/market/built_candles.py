"""Which candles of a series were built from finer ones, as `meta` keeps it beside the gap ledger.

    built:DATABASE:SYMBOL -> BuiltCandles

Series of native candles alone have no such record. Whatever is written natively later is native.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec
import numpy as np

from llm_trader.arrays import Mask, Times
from llm_trader.market import checksums, series_records
from llm_trader.market.stored_series import StoredSeries
from llm_trader.storage.environment import ReadTransaction, WriteTransaction
from llm_trader.timeframe import Millis, Timeframe

Spans: TypeAlias = tuple[tuple[Millis, Millis], ...]

# Begins the source of candles that were built from finer ones.
RESAMPLED: Final = "resampled from"


class BuiltCandles(msgspec.Struct, frozen=True):
    """Spans of open times, each with its end excluded, without a gap of the timeframe in it.

    `incomplete_ms` has the open times of those that were built from a part of their finer candles.
    """

    spans: Spans = ()
    incomplete_ms: tuple[Millis, ...] = ()

    def contain(self, times: Times) -> Mask:
        """Which of the open times are those of built candles."""
        bounds = np.array(self.spans, np.int64).reshape(-1)
        inside: Mask = np.searchsorted(bounds, times, side="right") % 2 == 1
        return inside


def read_built(txn: ReadTransaction, series: StoredSeries[Any]) -> BuiltCandles:
    recorded = series_records.read_meta(txn, _key(series), BuiltCandles)
    if recorded is not None:
        return recorded
    # Earlier versions built whole series only, and kept no record.
    record = series_records.read_record(txn, series)
    sources = series_records.provenance(txn, series) if record else []
    if record and series.timeframe and all(s.source.startswith(RESAMPLED) for s in sources):
        return BuiltCandles(((record.first_ms, record.last_ms + series.timeframe.ms),))
    return BuiltCandles()


def changed_by_write(
    txn: ReadTransaction,
    series: StoredSeries[Any],
    times: Times,
    incomplete_ms: Times | None,
    built: BuiltCandles | None,
) -> BuiltCandles | None:
    """The record after rows were written, None where it stays.

    All rows were built where `incomplete_ms` says which of them in part, and else those of `built`.
    """
    if series.timeframe is None:
        return None
    written = _spans(times, series.timeframe)
    if built is not None:
        is_built = built.contain(times)
        former = read_built(txn, series)
        native = _spans(times[~is_built], series.timeframe)
        spans = _united(
            _subtracted(former.spans, native), _spans(times[is_built], series.timeframe)
        )
        incomplete_ms = np.array(built.incomplete_ms, np.int64)
    elif incomplete_ms is None:
        # Native candles are written all the time, and hardly any series has built ones.
        former = series_records.read_meta(txn, _key(series), BuiltCandles) or BuiltCandles()
        if not former.contain(times).any():
            return None
        spans = _subtracted(former.spans, written)
    else:
        former = read_built(txn, series)
        spans = _united(former.spans, written)
    incomplete = np.setdiff1d(np.array(former.incomplete_ms, np.int64), times)
    if incomplete_ms is not None:
        incomplete = np.union1d(incomplete, np.intersect1d(incomplete_ms, times))
    after = BuiltCandles(spans, tuple(incomplete.tolist()))
    return None if after == former else after


def put_built(txn: WriteTransaction, series: StoredSeries[Any], built: BuiltCandles) -> None:
    checksums.put_meta(txn, _key(series), msgspec.json.encode(built))


def forget_before(txn: WriteTransaction, series: StoredSeries[Any], end_ms: Millis) -> None:
    """Leave out those that open before a time, whose rows are removed."""
    former = series_records.read_meta(txn, _key(series), BuiltCandles)
    if former is not None:
        spans = _subtracted(former.spans, ((0, end_ms),))
        put_built(txn, series, BuiltCandles(spans, _from(end_ms, former.incomplete_ms)))


def _from(first_ms: Millis, times: tuple[Millis, ...]) -> tuple[Millis, ...]:
    return tuple(time_ms for time_ms in times if time_ms >= first_ms)


def _united(spans: Spans, more: Spans) -> Spans:
    united: list[tuple[Millis, Millis]] = []
    for start, end in sorted((*spans, *more)):
        if united and start <= united[-1][1]:
            former_start, former_end = united.pop()
            start, end = former_start, max(former_end, end)
        united.append((start, end))
    return tuple(united)


def _subtracted(spans: Spans, removed: Spans) -> Spans:
    """What is left of the spans; both are in order."""
    left: list[tuple[Millis, Millis]] = []
    for start, end in spans:
        for first, last in removed:
            if first < end and last > start:
                if first > start:
                    left.append((start, first))
                start = last
        if start < end:
            left.append((start, end))
    return tuple(left)


def _spans(times: Times, timeframe: Timeframe) -> Spans:
    if not len(times):
        return ()
    breaks = np.flatnonzero(np.diff(times) != timeframe.ms)
    starts = times[np.concatenate(([0], breaks + 1))]
    ends = times[np.append(breaks, len(times) - 1)] + timeframe.ms
    return tuple(zip(starts.tolist(), ends.tolist(), strict=True))


def _key(series: StoredSeries[Any]) -> str:
    return f"built:{series}"
