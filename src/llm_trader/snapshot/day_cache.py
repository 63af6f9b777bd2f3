"""Builds the states of UTC days from a store and keeps them until their symbol is written to."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np

from llm_trader.arrays import Floats, Times
from llm_trader.market.history import MarketHistory
from llm_trader.market.store import MarketStore
from llm_trader.market.stored_history import StoredHistory
from llm_trader.snapshot.builder import FOUR_HOUR_REACH_MS, INTRADAY_REACH_MS, build_snapshots
from llm_trader.snapshot.model import SCALARS
from llm_trader.timeframe import DAY_MS, Millis, Timeframe

# Days of some 30 KB each. Queries about the past often return to a day.
_DAYS_KEPT: Final = 1024
# Inputs of some 400 KB each. The current day of this many symbols is extended, not built again.
_INPUTS_KEPT: Final = 64


def read_history(
    store: MarketStore, symbol: str, intraday: Timeframe, first_ms: Millis, end_ms: Millis
) -> MarketHistory:
    """The history that snapshots from `first_ms` to `end_ms` need, and no more."""
    return _read_stored(store, symbol, intraday, first_ms, end_ms).decode()


def _read_stored(
    store: MarketStore, symbol: str, intraday: Timeframe, first_ms: Millis, end_ms: Millis
) -> StoredHistory:
    midnight_ms = first_ms - first_ms % DAY_MS
    return store.stored_history(
        symbol,
        intraday,
        midnight_ms - INTRADAY_REACH_MS,
        end_ms,
        four_hour_start_ms=midnight_ms - FOUR_HOUR_REACH_MS,
    )


@dataclass(slots=True, eq=False)
class DayStates:
    """The scalar fields (fields, n) at the first n times of a day, and the closes of its candles.

    `version` is the version of the symbol's data, `None` before the first build.
    """

    version: Hashable = None
    fields: Floats = field(default_factory=lambda: np.empty((len(SCALARS), 0)))
    closes_ms: Times = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass(slots=True, eq=False)
class _DayInputs:
    """The data of a day as it was last read."""

    stored: StoredHistory | None = None
    history: MarketHistory | None = None

    def update(self, stored: StoredHistory) -> tuple[MarketHistory, Millis | None]:
        """The new history, and the first time at which it differs from the former one."""
        changed_ms: Millis | None = 0
        if self.stored is None or self.history is None:
            history = stored.decode()
        else:
            history, changed_ms = stored.decode_changes(self.stored, self.history)
        self.stored, self.history = stored, history
        return history, changed_ms


class DayCache:
    """The days of a store's symbols on the grid of snapshots. Not thread-safe."""

    def __init__(self, store: MarketStore, intraday: Timeframe, grid: Timeframe) -> None:
        self._store = store
        self._intraday = intraday
        self._grid = grid
        self._days = lru_cache(_DAYS_KEPT)(lambda symbol, day: DayStates())
        self._inputs = lru_cache(_INPUTS_KEPT)(lambda symbol, day: _DayInputs())

    def states(self, symbol: str, day: int, version: Hashable, row: int) -> DayStates:
        """The states of a day (counted from 1970) up to `row` or later, at `version` or later."""
        states: DayStates = self._days(symbol, day)
        if states.version != version or row >= states.fields.shape[1]:
            self._extend(states, symbol, day, row)
            states.version = version
        return states

    def _extend(self, states: DayStates, symbol: str, day: int, row: int) -> None:
        """Build the states that are missing or use changed data, up to `row` and the last close.

        Other states stay: a state depends on its history alone, so a rebuild would equal it.
        """
        start_ms, end_ms = day * DAY_MS, (day + 1) * DAY_MS
        stored = _read_stored(self._store, symbol, self._intraday, start_ms, end_ms)
        history, changed_ms = self._inputs(symbol, day).update(stored)
        times = np.arange(start_ms, end_ms, self._grid.ms, dtype=np.int64)
        if changed_ms is not None:
            states.fields = states.fields[:, : np.searchsorted(times, changed_ms)]
        opens_ms = history.intraday.between(start_ms - self._intraday.ms, None).open_time_ms
        states.closes_ms = opens_ms + self._intraday.ms
        closed = int(np.searchsorted(times, states.closes_ms.max(initial=0), side="right"))
        missing = times[states.fields.shape[1] : max(closed, row + 1)]
        built = build_snapshots(history, missing).scalars
        states.fields = np.hstack((states.fields, built))
