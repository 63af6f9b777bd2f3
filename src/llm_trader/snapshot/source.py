"""The state of a market at any time, while another process may be writing to the store."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from functools import cached_property

import numpy as np

from llm_trader.arrays import Floats
from llm_trader.errors import StaleDataError, SymbolNotFoundError
from llm_trader.market.store import MarketStore
from llm_trader.snapshot.builder import build_snapshots
from llm_trader.snapshot.day_cache import DayCache, read_history
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, MINUTE_MS, Millis, Timeframe, iso8601


class SnapshotSource:
    """Snapshots of a market store on the grid of `interval_ms`. Not thread-safe.

    The states of a day are built together, because queries of one day tend to follow each other.
    They are kept until their symbol is written to; a new candle only adds states.
    """

    def __init__(self, store: MarketStore, intraday: Timeframe, interval_ms: Millis) -> None:
        self._store = store
        self._intraday = intraday
        self._grid = Timeframe(interval_ms)
        self._days = DayCache(store, intraday, self._grid)

    def view(self, symbol: str) -> SymbolView:
        """The states of a symbol. Each query takes a view, which reads the data's version once."""
        return SymbolView(self._store, self._days, self._grid, self._intraday, symbol)


class SymbolView:
    """The states of a symbol at the version that its data had at the first use of the view."""

    def __init__(
        self, store: MarketStore, days: DayCache, grid: Timeframe, intraday: Timeframe, symbol: str
    ) -> None:
        self._store = store
        self._days = days
        self._grid = grid
        self._intraday = intraday
        self._symbol = symbol

    @cached_property
    def _version(self) -> Hashable:
        return self._store.symbol_version(self._symbol)

    def known_fields(self, as_of_ms: Millis) -> Floats:
        """The scalar fields at the grid's last time up to `as_of_ms`, (fields, 1); NaN: unknown."""
        row = as_of_ms % DAY_MS // self._grid.ms
        states = self._days.states(self._symbol, as_of_ms // DAY_MS, self._version, row)
        return states.fields[:, row : row + 1]

    def newest_complete_ms(self, as_of_ms: Millis, max_age_ms: Millis) -> Millis | None:
        """The time of the newest complete snapshot at most `max_age_ms` old, or on the grid now."""
        newest_ms = self._grid.floor(as_of_ms)
        oldest_ms = min(newest_ms, as_of_ms - max_age_ms)
        for time_ms in range(newest_ms, oldest_ms - 1, -self._grid.ms):
            if np.isfinite(self.known_fields(time_ms)).all():
                return time_ms
        return None

    def latest(self, as_of_ms: Millis, max_age_ms: Millis) -> SnapshotTable:
        """The newest complete snapshot, one row with its series. Raises like `latest_ms`."""
        return self.exactly_at(self.latest_ms(as_of_ms, max_age_ms))

    def latest_ms(self, as_of_ms: Millis, max_age_ms: Millis) -> Millis:
        """The time of the newest complete snapshot at or before a time.

        Raises `SymbolNotFoundError`, or `StaleDataError`, which says what is missing, if no
        snapshot at most `max_age_ms` old is complete.
        """
        age_ms = self.data_age_ms(as_of_ms)
        if age_ms is None or age_ms > max_age_ms:
            raise _too_old(self._symbol, as_of_ms, age_ms, max_age_ms)
        complete_ms = self.newest_complete_ms(as_of_ms, max_age_ms)
        if complete_ms is not None:
            return complete_ms
        newest_ms = self._grid.floor(as_of_ms)
        refusals = "; ".join(self.exactly_at(newest_ms).refusals())
        raise StaleDataError(
            f"no complete snapshot of {self._symbol} at {iso8601(newest_ms)}: {refusals}; collect "
            "the missing data, or send current_state",
            data_age_seconds=age_ms / 1000,
        )

    def exactly_at(self, as_of_ms: Millis) -> SnapshotTable:
        """The snapshot at a time of the grid, one row with its series."""
        history = read_history(self._store, self._symbol, self._intraday, as_of_ms, as_of_ms + 1)
        return build_snapshots(history, np.array([as_of_ms], dtype=np.int64))

    def without_series(self, as_of_ms: Millis) -> SnapshotTable:
        """The snapshot at a time of the grid, from the cache: scalar fields only."""
        times = np.array([as_of_ms], dtype=np.int64)
        table = SnapshotTable.unknown(self._symbol, self._intraday, times)
        return replace(table, scalars=self.known_fields(as_of_ms))

    def data_age_ms(self, as_of_ms: Millis) -> Millis | None:
        """The age of the newest candle that had closed by a time; `None` if there is none.

        Raises `SymbolNotFoundError` for a symbol that the store does not have.
        """
        closes_ms = self._days.states(self._symbol, as_of_ms // DAY_MS, self._version, -1).closes_ms
        count = int(np.searchsorted(closes_ms, as_of_ms, side="right"))
        if count:
            return as_of_ms - int(closes_ms[count - 1])
        newest_ms = self._store.newest_close_ms(self._symbol, self._intraday, as_of_ms)
        if newest_ms is not None:
            return as_of_ms - newest_ms
        available = self._store.symbols()
        if self._symbol not in available:
            raise SymbolNotFoundError(self._symbol, available)
        return None


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
