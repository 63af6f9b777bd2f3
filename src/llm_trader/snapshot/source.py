"""The state of a market at any time, while another process may be writing to the store."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Final

import numpy as np

from llm_trader.arrays import Floats, Mask, Times
from llm_trader.errors import StaleDataError, SymbolNotFoundError
from llm_trader.market.history import MarketHistory
from llm_trader.market.store import MarketStore
from llm_trader.market.stored_history import StoredHistory
from llm_trader.snapshot.builder import (
    DEFAULT_RULES,
    FOUR_HOUR_REACH_MS,
    INTRADAY_REACH_MS,
    VOLATILITY_REACH_MS,
    SnapshotRules,
    build_snapshots,
)
from llm_trader.snapshot.model import EXPECTED_VOLATILITY, REQUIRED, SCALARS
from llm_trader.snapshot.table import SnapshotTable, is_complete, is_usable
from llm_trader.timeframe import DAY_MS, MINUTE_MS, Millis, Timeframe, iso8601

# Days of some 30 KB each. Queries about the past often return to a day.
_DAYS_KEPT: Final = 1024
# Inputs of some 400 KB each. The current day of this many symbols is extended, not built again.
_INPUTS_KEPT: Final = 64
_NEEDED_NOW: Final = frozenset(REQUIRED) - frozenset(EXPECTED_VOLATILITY.values())


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
        midnight_ms - VOLATILITY_REACH_MS,
        end_ms,
        four_hour_start_ms=midnight_ms - FOUR_HOUR_REACH_MS,
    )


@dataclass(slots=True, eq=False)
class _DayStates:
    """The scalar fields (fields, n) at the first n times of a day, and the closes of its candles.

    `changes_ms` are the closes of the candles of the last days that differ from the one before.
    `version` is the version of the symbol's data, `None` before the first build.
    """

    version: Hashable = None
    fields: Floats = field(default_factory=lambda: np.empty((len(SCALARS), 0)))
    closes_ms: Times = field(default_factory=lambda: np.empty(0, np.int64))
    changes_ms: Times = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass(slots=True, eq=False)
class _DayInputs:
    """The data of a day as it was last read."""

    last_read: tuple[StoredHistory, MarketHistory] | None = None

    def update(self, stored: StoredHistory) -> tuple[MarketHistory, Millis | None]:
        """The new history, and the first time at which it differs from the former one."""
        last = self.last_read
        history, changed_ms = stored.decode_changes(*last) if last else (stored.decode(), 0)
        self.last_read = stored, history
        return history, changed_ms


class SnapshotSource:
    """Snapshots of a market store on the grid of `interval_ms`. Not thread-safe.

    The states of a day are built together, because queries of one day tend to follow each other.
    They are kept until their symbol is written to; a new candle only adds states.
    """

    def __init__(
        self,
        store: MarketStore,
        intraday: Timeframe,
        interval_ms: Millis,
        rules: SnapshotRules = DEFAULT_RULES,
    ) -> None:
        self.store = store
        self.intraday = intraday
        self.rules = rules
        self.grid = Timeframe(interval_ms)
        # How often the states of a day were ready, and how often some of them had to be built.
        self.day_hits = self.day_misses = 0
        self._days = lru_cache(_DAYS_KEPT)(lambda symbol, day: _DayStates())
        self._inputs = lru_cache(_INPUTS_KEPT)(lambda symbol, day: _DayInputs())

    def view(self, symbol: str) -> SymbolView:
        """The states of a symbol. Each query takes a view, which reads the data's version once."""
        return SymbolView(self, symbol)

    def end_ms(self, symbol: str) -> Millis | None:
        """The close of the newest candle of a symbol; None if there is none."""
        stored = self.store.first_and_last_ms(symbol, self.intraday)
        return None if stored is None else stored[1] + self.intraday.ms

    def day_states(self, symbol: str, day: int, version: Hashable, row: int) -> _DayStates:
        """The states of a day (counted from 1970) up to `row` or later, at `version` or later."""
        states: _DayStates = self._days(symbol, day)
        if states.version != version or row >= states.fields.shape[1]:
            self.day_misses += 1
            self._extend(states, symbol, day, row)
            states.version = version
        else:
            self.day_hits += 1
        return states

    def _extend(self, states: _DayStates, symbol: str, day: int, row: int) -> None:
        """Build the states that are missing or use changed data, up to `row` and the last close.

        Other states stay: a state depends on its history alone, so a rebuild would equal it.
        """
        start_ms, end_ms = day * DAY_MS, (day + 1) * DAY_MS
        stored = _read_stored(self.store, symbol, self.intraday, start_ms, end_ms)
        history, changed_ms = self._inputs(symbol, day).update(stored)
        times = np.arange(start_ms, end_ms, self.grid.ms, dtype=np.int64)
        if changed_ms is not None:
            states.fields = states.fields[:, : np.searchsorted(times, changed_ms)]
        candles = history.intraday.between(start_ms - INTRADAY_REACH_MS, None)
        closes_ms = candles.open_time_ms + self.intraday.ms
        states.closes_ms = closes_ms[np.searchsorted(closes_ms, start_ms) :]
        states.changes_ms = closes_ms[candles.differ_from_previous()]
        closed = int(np.searchsorted(times, states.closes_ms.max(initial=0), side="right"))
        missing = times[states.fields.shape[1] : max(closed, row + 1)]
        fresh = build_snapshots(history, missing, self.rules).scalars
        states.fields = np.hstack((states.fields, fresh))


@dataclass(frozen=True, eq=False)
class SymbolView:
    """The states of a symbol at the version that its data had at the first use of the view."""

    source: SnapshotSource
    symbol: str

    @cached_property
    def _version(self) -> Hashable:
        return self.source.store.symbol_version(self.symbol)

    def known_fields(self, as_of_ms: Millis) -> Floats:
        """The scalar fields at the grid's last time up to `as_of_ms`, (fields, 1); NaN: unknown."""
        row = as_of_ms % DAY_MS // self.source.grid.ms
        day = as_of_ms // DAY_MS
        states = self.source.day_states(self.symbol, day, self._version, row)
        return states.fields[:, row : row + 1]

    def newest_usable_ms(self, as_of_ms: Millis, max_age_ms: Millis) -> Millis | None:
        """The time of the newest usable snapshot at most `max_age_ms` old, or on the grid now.

        It may lack open interest or funding.
        """
        return self._newest_ms(as_of_ms, max_age_ms, is_usable)

    def newest_complete_ms(self, as_of_ms: Millis, max_age_ms: Millis) -> Millis | None:
        """The same of a snapshot that lacks nothing."""
        return self._newest_ms(as_of_ms, max_age_ms, is_complete)

    def _newest_ms(
        self, as_of_ms: Millis, max_age_ms: Millis, passes: Callable[[Floats], Mask]
    ) -> Millis | None:
        grid = self.source.grid
        newest_ms = grid.floor(as_of_ms)
        oldest_ms = min(newest_ms, as_of_ms - max_age_ms)
        times = range(newest_ms, oldest_ms - 1, -grid.ms)
        return next((t for t in times if passes(self.known_fields(t)).all()), None)

    def latest(
        self, as_of_ms: Millis, max_age_ms: Millis, max_unchanged_ms: Millis | None = None
    ) -> SnapshotTable:
        """The newest usable snapshot, one row with its series. Raises like `latest_ms`."""
        return self.exactly_at(self.latest_ms(as_of_ms, max_age_ms, max_unchanged_ms))

    def latest_ms(
        self, as_of_ms: Millis, max_age_ms: Millis, max_unchanged_ms: Millis | None = None
    ) -> Millis:
        """The time of the newest usable snapshot at or before a time.

        Raises `SymbolNotFoundError`, or `StaleDataError`, which says what is missing, if no
        snapshot at most `max_age_ms` old is usable, or if the newest candles have repeated one
        another for longer than `max_unchanged_ms`.
        """
        age_ms = self.data_age_ms(as_of_ms)
        if age_ms is None or age_ms > max_age_ms:
            raise _too_old(self, as_of_ms, age_ms, max_age_ms)
        unchanged_ms = self.unchanged_ms(as_of_ms)
        if max_unchanged_ms is not None and unchanged_ms > max_unchanged_ms:
            raise _frozen(self, as_of_ms - age_ms, age_ms, unchanged_ms, max_unchanged_ms)
        usable_ms = self.newest_usable_ms(as_of_ms, max_age_ms)
        if usable_ms is not None:
            return usable_ms
        newest_ms = self.source.grid.floor(as_of_ms)
        refusals = "; ".join(self.exactly_at(newest_ms).refusals(_NEEDED_NOW))
        raise StaleDataError(
            f"no usable snapshot of {self.symbol} at {iso8601(newest_ms)}: {refusals}"
            f"{_jumps_of(self._history_at(newest_ms))}; collect the missing data, or send "
            "current_state",
            data_age_seconds=age_ms / 1000,
        )

    def exactly_at(self, as_of_ms: Millis) -> SnapshotTable:
        """The snapshot at a time of the grid, one row with its series."""
        times = np.array([as_of_ms], dtype=np.int64)
        return build_snapshots(self._history_at(as_of_ms), times, self.source.rules)

    def _history_at(self, as_of_ms: Millis) -> MarketHistory:
        store, intraday = self.source.store, self.source.intraday
        return read_history(store, self.symbol, intraday, as_of_ms, as_of_ms + 1)

    def without_series(self, as_of_ms: Millis) -> SnapshotTable:
        """The snapshot at a time of the grid, from the cache: scalar fields only."""
        times = np.array([as_of_ms], dtype=np.int64)
        table = SnapshotTable.unknown(self.symbol, self.source.intraday, times)
        return replace(table, scalars=self.known_fields(as_of_ms))

    def data_age_ms(self, as_of_ms: Millis) -> Millis | None:
        """The age of the newest candle that had closed by a time; `None` if there is none.

        Raises `SymbolNotFoundError` for a symbol that the store does not have.
        """
        source, day = self.source, as_of_ms // DAY_MS
        closes_ms = source.day_states(self.symbol, day, self._version, -1).closes_ms
        count = int(np.searchsorted(closes_ms, as_of_ms, side="right"))
        if count:
            return as_of_ms - int(closes_ms[count - 1])
        newest_ms = source.store.newest_close_ms(self.symbol, source.intraday, as_of_ms)
        if newest_ms is None and self.symbol not in (available := source.store.symbols()):
            raise SymbolNotFoundError(self.symbol, available)
        return None if newest_ms is None else as_of_ms - newest_ms

    def unchanged_ms(self, as_of_ms: Millis) -> Millis:
        """How long the newest candles by a time have repeated one another; 0 where they differ.

        It looks back two days at most.
        """
        states = self.source.day_states(self.symbol, as_of_ms // DAY_MS, self._version, -1)
        known = int(np.searchsorted(states.closes_ms, as_of_ms, side="right"))
        if not known:
            return 0
        newest_ms = int(states.closes_ms[known - 1])
        changed = int(np.searchsorted(states.changes_ms, newest_ms, side="right"))
        return newest_ms - int(states.changes_ms[changed - 1])


def _too_old(
    view: SymbolView, as_of_ms: Millis, age_ms: Millis | None, max_age_ms: Millis
) -> StaleDataError:
    """Names the newest time that can be asked for."""
    end_ms = view.source.end_ms(view.symbol)
    if age_ms is None:
        age = f"there is none before {iso8601(as_of_ms)}"
        remedy = "ask about a later time" if end_ms is not None else "import candles"
    else:
        newest_ms = as_of_ms - age_ms
        age = f"it closed at {iso8601(newest_ms)}, {_age(age_ms)} before {iso8601(as_of_ms)}"
        remedy = "collect newer data, or ask about an earlier time"
    newest = "" if end_ms is None else f"; the store's newest closed at {iso8601(end_ms)}"
    return StaleDataError(
        f"the newest {view.symbol} candle is too old: {age}, and {max_age_ms / MINUTE_MS:.0f} "
        f"minutes are allowed{newest if age_ms is None else ''}; {remedy}, or send current_state",
        data_age_seconds=None if age_ms is None else age_ms / 1000,
    )


def _jumps_of(history: MarketHistory) -> str:
    """In words, the newest jump before which candles do not count."""
    jumps_ms = np.union1d(history.intraday.jumps_ms, history.four_hour.jumps_ms)
    if not len(jumps_ms):
        return ""
    return (
        f"; the price jumps by more than ×3 at {iso8601(int(jumps_ms[-1]))}, and candles before it "
        "do not count until llm-trader data accept-jump says that it is real"
    )


def _frozen(
    view: SymbolView,
    newest_ms: Millis,
    age_ms: Millis,
    unchanged_ms: Millis,
    max_unchanged_ms: Millis,
) -> StaleDataError:
    return StaleDataError(
        f"the feed of {view.symbol} seems frozen: every candle since "
        f"{iso8601(newest_ms - unchanged_ms)} is the same, for {_age(unchanged_ms)} up to "
        f"{iso8601(newest_ms)}, and {max_unchanged_ms / MINUTE_MS:.0f} minutes are allowed; import "
        "the true candles, or send current_state",
        data_age_seconds=(age_ms + unchanged_ms) / 1000,
    )


def _age(age_ms: Millis) -> str:
    if age_ms >= 2 * DAY_MS:
        return f"{age_ms / DAY_MS:.0f} days"
    return f"{age_ms / MINUTE_MS:.0f} minutes"
