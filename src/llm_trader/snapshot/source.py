"""The state of a market at any time, from a store that somebody else may be writing to."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from llm_trader.arrays import Floats, Times
from llm_trader.errors import StaleDataError, SymbolNotFoundError
from llm_trader.market.history import MarketHistory
from llm_trader.market.store import MarketStore
from llm_trader.snapshot.builder import (
    FOUR_HOUR_REACH_MS,
    INTRADAY_REACH_MS,
    build_snapshots,
)
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, MINUTE_MS, Millis, Timeframe, iso8601

_DAYS_KEPT: Final = 1024  # some 30 KB each


def read_history(
    store: MarketStore, symbol: str, intraday: Timeframe, first_ms: Millis, end_ms: Millis
) -> MarketHistory:
    """What snapshots from `first_ms` on are made of, up to `end_ms`; no more is read."""
    midnight = first_ms - first_ms % DAY_MS
    return store.history(
        symbol,
        intraday,
        midnight - INTRADAY_REACH_MS,
        end_ms,
        four_hour_start_ms=midnight - FOUR_HOUR_REACH_MS,
    )


class _Day(NamedTuple):
    """One symbol's UTC day: scalar fields (fields, n) on the grid, and closes of its candles."""

    fields: Floats
    closes_ms: Times


class SnapshotSource:
    """Snapshots of a market store on the grid of `interval_ms`.

    A day's states are built together and kept while the store does not change, as a day's
    queries mostly follow each other.
    """

    def __init__(self, store: MarketStore, intraday: Timeframe, interval_ms: Millis) -> None:
        self._store = store
        self._intraday = intraday
        self._grid = Timeframe(interval_ms)
        self._built = lru_cache(_DAYS_KEPT)(self._build)

    def known_fields(self, symbol: str, as_of_ms: Millis) -> Floats:
        """The scalar fields on the grid at or before a time, shape (fields, 1); NaN if unknown."""
        at = self._grid.floor(as_of_ms)
        row = at % DAY_MS // self._grid.ms
        return self._day(symbol, at // DAY_MS).fields[:, row : row + 1]

    def newest_complete_ms(
        self, symbol: str, as_of_ms: Millis, max_age_ms: Millis
    ) -> Millis | None:
        """The time of the newest complete snapshot: the grid's last, or within `max_age_ms`."""
        newest = self._grid.floor(as_of_ms)
        oldest = min(newest, as_of_ms - max_age_ms)
        for at in range(newest, oldest - 1, -self._grid.ms):
            if np.isfinite(self.known_fields(symbol, at)).all():
                return at
        return None

    def latest(self, symbol: str, as_of_ms: Millis, max_age_ms: Millis) -> SnapshotTable:
        """The newest complete snapshot at or before a time, of one row, series included.

        Raises as `latest_ms`.
        """
        return self.exactly_at(symbol, self.latest_ms(symbol, as_of_ms, max_age_ms))

    def latest_ms(self, symbol: str, as_of_ms: Millis, max_age_ms: Millis) -> Millis:
        """The time of the newest complete snapshot at or before a time.

        Raises `SymbolNotFoundError`, and `StaleDataError` when there is none that is not older
        than `max_age_ms`, saying what is missing.
        """
        age_ms = self.data_age_ms(symbol, as_of_ms)
        if age_ms is None or age_ms > max_age_ms:
            raise _too_old(symbol, as_of_ms, age_ms, max_age_ms)
        at = self.newest_complete_ms(symbol, as_of_ms, max_age_ms)
        if at is not None:
            return at
        newest = self._grid.floor(as_of_ms)
        why = "; ".join(self.exactly_at(symbol, newest).refusals())
        raise StaleDataError(
            f"no complete snapshot of {symbol} at {iso8601(newest)}: {why}; collect what is "
            "missing, or send current_state",
            data_age_seconds=age_ms / 1000,
        )

    def exactly_at(self, symbol: str, at_ms: Millis) -> SnapshotTable:
        """The snapshot of a time on the grid, of one row, series included."""
        history = read_history(self._store, symbol, self._intraday, at_ms, at_ms + 1)
        return build_snapshots(history, np.array([at_ms], dtype=np.int64))

    def without_series(self, symbol: str, at_ms: Millis) -> SnapshotTable:
        """The snapshot of a time on the grid as it is at hand: scalar fields, no series."""
        table = SnapshotTable.unknown(symbol, self._intraday, np.array([at_ms], dtype=np.int64))
        return replace(table, scalars=self.known_fields(symbol, at_ms))

    def data_age_ms(self, symbol: str, as_of_ms: Millis) -> Millis | None:
        """How long before a time the newest candle known then had closed; `None` without any.

        Raises `SymbolNotFoundError` for a symbol that the store does not have.
        """
        closes = self._day(symbol, as_of_ms // DAY_MS).closes_ms
        known = int(np.searchsorted(closes, as_of_ms, side="right"))
        if known:
            return as_of_ms - int(closes[known - 1])
        newest = self._store.newest_close_ms(symbol, self._intraday, as_of_ms)
        if newest is not None:
            return as_of_ms - newest
        available = self._store.symbols()
        if symbol not in available:
            raise SymbolNotFoundError(symbol, available)
        return None

    def _day(self, symbol: str, day: int) -> _Day:
        return self._built(symbol, day, self._store.version)

    def _build(self, symbol: str, day: int, version: int) -> _Day:
        """`version` of the store is there to be remembered by: another makes another day."""
        midnight = day * DAY_MS
        history = read_history(self._store, symbol, self._intraday, midnight, midnight + DAY_MS)
        times = np.arange(midnight, midnight + DAY_MS, self._grid.ms, dtype=np.int64)
        closes = history.intraday.between(midnight - self._intraday.ms, None).open_time_ms
        return _Day(build_snapshots(history, times).scalars, closes + self._intraday.ms)


def _too_old(
    symbol: str, as_of_ms: Millis, age_ms: Millis | None, max_age_ms: Millis
) -> StaleDataError:
    age = "there is none" if age_ms is None else f"{age_ms / MINUTE_MS:.0f} minutes older"
    return StaleDataError(
        f"the newest {symbol} candle known at {iso8601(as_of_ms)} is too old ({age}, "
        f"{max_age_ms / MINUTE_MS:.0f} minutes are allowed); collect newer data, or send "
        "current_state",
        data_age_seconds=None if age_ms is None else age_ms / 1000,
    )
