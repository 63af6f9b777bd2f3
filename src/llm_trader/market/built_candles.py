"""Which candles of a series were built from finer ones, as `meta` keeps it beside the gap ledger.

    built:DATABASE:SYMBOL -> BuiltCandles

Series of native candles alone have no such record. Whatever is written natively later is native.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from llm_trader.arrays import Mask, Times
from llm_trader.market import checksums, series_records
from llm_trader.market.stored_series import StoredSeries
from llm_trader.storage.environment import ReadTransaction, WriteTransaction
from llm_trader.timeframe import Millis, Timeframe

# Begins the source of candles that were built from finer ones.
RESAMPLED: str = "resampled from"


class BuiltCandles(msgspec.Struct, frozen=True):
    """Spans of open times, each with its end excluded, without a gap of the timeframe in it.

    `incomplete_ms` has the open times of those that were built from a part of their finer candles.
    """

    spans: tuple[tuple[Millis, Millis], ...] = ()
    incomplete_ms: tuple[Millis, ...] = ()

    def contain(self, times: Times) -> Mask:
        """Which of the open times are those of built candles."""
        bounds = np.array(self.spans, np.int64).reshape(-1)
        inside: Mask = np.searchsorted(bounds, times, side="right") % 2 == 1
        return inside

    def times(self, timeframe: Timeframe) -> Times:
        spans = [np.arange(start, end, timeframe.ms) for start, end in self.spans]
        return np.concatenate([np.empty(0, np.int64), *spans])


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
) -> BuiltCandles | None:
    """The record after rows were written, None where it stays; `incomplete_ms` of built ones."""
    if series.timeframe is None:
        return None
    if incomplete_ms is None:
        # Native candles are written all the time, and hardly any series has built ones.
        former = series_records.read_meta(txn, _key(series), BuiltCandles) or BuiltCandles()
        if not former.contain(times).any():
            return None
        built = np.setdiff1d(former.times(series.timeframe), times)
        incomplete = np.setdiff1d(np.array(former.incomplete_ms, np.int64), times)
    else:
        former = read_built(txn, series)
        built = np.union1d(former.times(series.timeframe), times)
        kept = np.setdiff1d(np.array(former.incomplete_ms, np.int64), times)
        incomplete = np.union1d(kept, incomplete_ms)
    after = BuiltCandles(_spans(built, series.timeframe), tuple(incomplete.tolist()))
    return None if after == former else after


def put_built(txn: WriteTransaction, series: StoredSeries[Any], built: BuiltCandles) -> None:
    checksums.put_meta(txn, _key(series), msgspec.json.encode(built))


def _spans(times: Times, timeframe: Timeframe) -> tuple[tuple[Millis, Millis], ...]:
    if not len(times):
        return ()
    breaks = np.flatnonzero(np.diff(times) != timeframe.ms)
    starts = times[np.concatenate(([0], breaks + 1))]
    ends = times[np.append(breaks, len(times) - 1)] + timeframe.ms
    return tuple(zip(starts.tolist(), ends.tolist(), strict=True))


def _key(series: StoredSeries[Any]) -> str:
    return f"built:{series}"
