"""The gap ledger in words: what a series lacks, and why.

- `outage`: the exchange was asked and has nothing, or its archive published none.
- `rejected`: the exchange or its archive sent rows, and they were refused.
- `not_fetched`: nobody has asked, as far as the store knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from llm_trader.arrays import Times
from llm_trader.errors import StoreError
from llm_trader.market import keys, record_ranges
from llm_trader.market.absent_spans import Span, read_absent, spans_without_rows, without_spans
from llm_trader.market.archive.plan import file_of_path
from llm_trader.market.refused_rows import read_refused
from llm_trader.market.samples import STAMP_TOLERANCE_MS
from llm_trader.market.series_ledgers import archive_records
from llm_trader.market.series_records import sample_interval_ms
from llm_trader.market.stored_series import StoredSeries
from llm_trader.storage.environment import ReadTransaction
from llm_trader.timeframe import HOUR_MS, Millis

Reason = Literal["outage", "rejected", "not_fetched"]

# Venues publish now and then late; what is missing of the last hour may only be that.
MAY_BE_LATE_MS: Final = HOUR_MS


class MissingRows(NamedTuple):
    """A part of a hole with one reason. `at_end` where the series ends before the candles do."""

    start_ms: Millis
    end_ms: Millis
    missing: int
    reason: Reason
    at_end: bool = False

    @property
    def span(self) -> Span:
        return Span(self.start_ms, self.end_ms)


class _Hole(NamedTuple):
    """Rows are expected every `step_ms` from `first_ms` on, before `until_ms`."""

    span: Span
    first_ms: Millis
    step_ms: Millis
    until_ms: Millis
    at_end: bool = False

    def expected_in(self, part: Span) -> int:
        def before(time_ms: Millis) -> int:
            return max(0, -(-(min(time_ms, self.until_ms) - self.first_ms) // self.step_ms))

        return before(part.end_ms) - before(part.start_ms)


def missing_rows(
    txn: ReadTransaction,
    series: StoredSeries[Any],
    times: Times,
    candles_end_ms: Millis | None = None,
) -> list[MissingRows]:
    """What is missing between the rows of a series, whose times are given.

    With the close of the symbol's newest candle, also what samples lack up to there.
    """
    holes = _holes(txn, series, times, candles_end_ms)
    if not holes:
        return []
    absent = [*read_absent(txn, series), *_archived(txn, series, ("stored", "missing"))]
    refused = [Span(r.start_ms, r.end_ms) for r in read_refused(txn, series)]
    refused += _archived(txn, series, ("refused",))
    return [part for hole in holes for part in _explained(hole, absent, refused)]


def newest_close_ms(txn: ReadTransaction, symbol: str) -> Millis | None:
    """The close of the newest candle of any timeframe."""
    closes = []
    for series in record_ranges.all_series(txn):
        if series.symbol == symbol and series.timeframe is not None:
            key = record_ranges.last_key(txn, series)
            closes += [] if key is None else [series.time(key) + series.timeframe.ms]
    return max(closes, default=None)


def _holes(
    txn: ReadTransaction, series: StoredSeries[Any], times: Times, candles_end_ms: Millis | None
) -> list[_Hole]:
    if not len(times):
        return []
    if series.timeframe is not None:
        step_ms = series.timeframe.ms
        steps_ms = reach_ms = np.full(len(times), step_ms)
    elif series.database == keys.FUNDING:
        try:
            funding = series.read(record_ranges.items(txn, series, None, None))
        except StoreError:
            return []  # the check names the damaged row
        step_ms, steps_ms, reach_ms = 1, funding.interval_ms, funding.speaks_for_ms
    else:
        step_ms, interval_ms = 1, sample_interval_ms(txn, series)
        steps_ms = np.full(len(times), interval_ms)
        reach_ms = steps_ms + STAMP_TOLERANCE_MS
    inside = Span(int(times[0]), int(times[-1]) + step_ms)
    found = [
        _hole(times, steps_ms, span)
        for span in spans_without_rows(times, reach_ms, step_ms, inside)
    ]
    last_ms, interval_ms = int(times[-1]), int(steps_ms[-1])
    if (
        series.timeframe is None
        and candles_end_ms is not None
        and candles_end_ms - last_ms > interval_ms + MAY_BE_LATE_MS
    ):
        rest = Span(last_ms + 1, candles_end_ms)
        found.append(_Hole(rest, last_ms + interval_ms, interval_ms, candles_end_ms, True))
    return found


def _hole(times: Times, steps_ms: Times, span: Span) -> _Hole:
    row = int(np.searchsorted(times, span.start_ms)) - 1
    step_ms = int(steps_ms[row])
    # The row after the hole may come some time before or after its own.
    return _Hole(span, int(times[row]) + step_ms, step_ms, span.end_ms - step_ms // 2)


def _explained(hole: _Hole, absent: Sequence[Span], refused: Sequence[Span]) -> list[MissingRows]:
    whole = [hole.span]
    rest = without_spans(whole, refused)
    not_fetched = without_spans(rest, absent)
    parts: list[tuple[Span, Reason]] = [
        *((span, "rejected") for span in without_spans(whole, rest)),
        *((span, "outage") for span in without_spans(rest, not_fetched)),
        *((span, "not_fetched") for span in not_fetched),
    ]
    counted = ((span, hole.expected_in(span), reason) for span, reason in sorted(parts))
    return [
        MissingRows(*span, count, reason, hole.at_end) for span, count, reason in counted if count
    ]


def _archived(txn: ReadTransaction, series: StoredSeries[Any], states: Sequence[str]) -> list[Span]:
    """The periods whose files the archive has answered for, and how.

    Candles and funding that a file lacks may still be had from the exchange itself; open interest
    of the past is in these files alone.
    """
    is_interest = series.database == keys.OPEN_INTEREST
    periods = [
        file_of_path(path).period
        for path, record in archive_records(txn, series).items()
        if record.state in states and (record.state == "refused" or is_interest)
    ]
    return [Span(period.start_ms, period.end_ms) for period in periods]
