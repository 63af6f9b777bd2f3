"""Which snapshots, with their outcomes, read rows that changed since.

The reaches are those of `builder.py`, of the samples' look-ups, and of the outcomes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llm_trader.arrays import Mask, Times
from llm_trader.market import keys
from llm_trader.market.series_changes import DataChanges, Stretch
from llm_trader.market.store import MarketStore
from llm_trader.snapshot.builder import FOUR_HOUR_REACH_MS
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS
from llm_trader.timeframe import DAY_MS, H4, MINUTE_MS, Millis, Timeframe
from llm_trader.volatility.model import LONGEST_WINDOW_MS


class ReadRanges(NamedTuple):
    """The rows of one series that each snapshot reads: from a time to a time, both (n,)."""

    first_ms: Times
    last_ms: Times

    def touch(self, stretches: Sequence[Stretch]) -> Mask:
        touched = np.zeros(len(self.first_ms), np.bool_)
        for stretch in stretches:
            touched |= (self.first_ms <= stretch.last_ms) & (self.last_ms >= stretch.first_ms)
        return touched


def snapshots_reading(
    changes: DataChanges, as_of_ms: Times, store: MarketStore, symbol: str, intraday: Timeframe
) -> Mask:
    """Whether each snapshot of a symbol, or its outcome, reads a changed row, (n,)."""
    reading = np.zeros(len(as_of_ms), np.bool_)
    fine = keys.candles_database(intraday)
    for database, stretches in changes.stretches.items():
        if database == fine:
            ranges = _intraday(as_of_ms, intraday)
        elif database == keys.candles_database(H4):
            ranges = _four_hour(as_of_ms)
        elif database == keys.FUNDING:
            ranges = _funding(as_of_ms, store.funding(symbol).time_ms)
        elif database == keys.OPEN_INTEREST:
            ranges = _open_interest(as_of_ms, changes.mark.open_interest_interval_ms)
        else:  # candles that no snapshot reads
            continue
        reading |= ranges.touch(stretches)
    return reading


def whole_in_store(as_of_ms: Times, kept_from_ms: Millis | None) -> Mask:
    """Whether all that a snapshot reads is from after the time before which rows were removed."""
    first_ms = as_of_ms - as_of_ms % DAY_MS - FOUR_HOUR_REACH_MS
    return first_ms >= (kept_from_ms or 0)


def _intraday(as_of_ms: Times, intraday: Timeframe) -> ReadRanges:
    """Expected volatility reads a week and the close before it, which is more than indicators."""
    first_ms = as_of_ms - LONGEST_WINDOW_MS - intraday.ms
    return ReadRanges(first_ms, as_of_ms + LONGEST_HORIZON_MS - intraday.ms)


def _four_hour(as_of_ms: Times) -> ReadRanges:
    midnight_ms = as_of_ms - as_of_ms % DAY_MS
    return ReadRanges(midnight_ms - FOUR_HOUR_REACH_MS, as_of_ms - H4.ms)


def _funding(as_of_ms: Times, settled_ms: Times) -> ReadRanges:
    """The last settlement alone."""
    row = np.searchsorted(settled_ms, as_of_ms, side="right") - 1
    first_ms = as_of_ms.copy()
    first_ms[row >= 0] = settled_ms[row[row >= 0]]
    return ReadRanges(first_ms, as_of_ms)


def _open_interest(as_of_ms: Times, interval_ms: Millis) -> ReadRanges:
    """The samples of a day, and the latest one, which may be older where they are rare."""
    reach_ms = max(DAY_MS - 1, interval_ms + MINUTE_MS)
    return ReadRanges(as_of_ms - reach_ms, as_of_ms)
