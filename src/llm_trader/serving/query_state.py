"""The state that a query is about: as it was sent, completed by the store, or the store's own."""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
import structlog

from llm_trader import errors
from llm_trader.serving import wire
from llm_trader.serving.config import ServingConfig
from llm_trader.snapshot.model import SCALARS, words_of_lacking
from llm_trader.snapshot.source import SymbolView
from llm_trader.snapshot.table import ROW, SnapshotTable, lacking
from llm_trader.timeframe import MINUTE_MS, Millis, Timeframe, iso8601

_log = structlog.get_logger(__name__)

# Exchanges differ by under 1 %, and a price moves by about 1 % in the minutes that a state may lag.
# A price that differs more from the store's comes from another market.
_PRICE_TOLERANCE: Final = 0.02
_INTERVAL: Final = ROW["funding_interval_hours"]
# Two 5-minute candles may be the same by chance in a market without trades.
_UNCHANGED_TO_WARN_MS: Final = 15 * MINUTE_MS


class QueryState(msgspec.Struct):
    """The state of a query, its time, and its source."""

    table: SnapshotTable
    source: str
    as_of_ms: Millis
    warnings: list[str]
    completed: list[str] = []
    completed_as_of_ms: Millis | None = None
    data_age_seconds: float | None = None

    def incomplete(self, reason: str) -> QueryState:
        self.warnings.append(f"nothing was completed{reason}")
        return self


def state_of(
    query: wire.PatternQuery, view: SymbolView | None, config: ServingConfig, intraday: Timeframe
) -> QueryState:
    """The state that a query sent, or that of the store; raises what is wrong with it."""
    if query.current_state is None:
        if view is None:
            raise errors.InvalidInputError(
                "current_state is required: this server has no market store to build it from"
            )
        as_of_ms = view.latest_ms(query.timestamp, *config.staleness_limits_ms)
        warnings = _frozen(view, query.timestamp)
        warnings += _lacks(view, query.timestamp, as_of_ms, config.max_data_age_ms)
        return QueryState(view.without_series(as_of_ms), "store", as_of_ms, warnings)
    sent = msgspec.structs.asdict(query.current_state)
    table = SnapshotTable.of_fields(query.symbol, intraday, query.timestamp, sent)
    return _completed(table, query, view, config, sent["funding_interval_hours"] is not None)


def _completed(
    table: SnapshotTable,
    query: wire.PatternQuery,
    view: SymbolView | None,
    config: ServingConfig,
    is_interval_sent: bool,
) -> QueryState:
    """The sent state; the store fills in missing fields if the prices agree.

    A sent state suffices by itself, so it is answered even if the store fails.
    """
    state = QueryState(table, "request", query.timestamp, [])
    if view is None or table.complete()[0]:
        return state
    try:
        as_of_ms = view.newest_usable_ms(query.timestamp, config.max_data_age_ms)
        if as_of_ms is None:
            return state.incomplete(": the store knows no complete state near that time")
        stored_fields = view.known_fields(as_of_ms)
    except errors.StoreError as error:
        return state.incomplete(f" from the store: {error.message}")
    price, stored_price = float(table.column("price")[0]), float(stored_fields[ROW["price"], 0])
    if abs(price / stored_price - 1) > _PRICE_TOLERANCE:
        return state.incomplete(
            f": price {price:g} is not near the store's {stored_price:g} at {iso8601(as_of_ms)}"
        )
    state.warnings += _frozen(view, query.timestamp)
    if not is_interval_sent and np.isfinite(stored_fields[_INTERVAL, 0]):
        table.scalars[_INTERVAL] = np.nan  # it was assumed, and the store knows it
    missing = (np.isnan(table.scalars) & np.isfinite(stored_fields))[:, 0].tolist()
    state.completed = [name for name, gap in zip(SCALARS, missing, strict=True) if gap]
    state.completed_as_of_ms, state.source = as_of_ms, "request+store"
    state.table = table.filled_from(stored_fields)
    return state


def data_age_seconds(view: SymbolView, moment: wire.Moment, warnings: list[str]) -> float | None:
    """Age of the newest candle; a store that fails is logged and added to `warnings`."""
    try:
        age_ms = view.data_age_ms(moment.timestamp)
    except errors.SymbolNotFoundError:
        return None
    except errors.StoreError as error:
        warnings.append(f"data_age_seconds is unknown: {error.message}")
        _log.warning("data_age_unknown", symbol=moment.symbol, error=error.message)
        return None
    return None if age_ms is None else age_ms / 1000


def _frozen(view: SymbolView, as_of_ms: Millis) -> list[str]:
    """Says so where the newest candles of the store repeat one another."""
    unchanged_ms = view.unchanged_ms(as_of_ms)
    if unchanged_ms < _UNCHANGED_TO_WARN_MS:
        return []
    return [
        f"every candle of the last {unchanged_ms / MINUTE_MS:.0f} minutes is the same; the feed "
        "may be frozen"
    ]


def across_holes(table: SnapshotTable) -> list[str]:
    """Says so where a state was computed across missing candles."""
    fields = ("missing_candles", "intraday", "7 days"), ("missing_candles_4h", "4h", "20 days")
    counts = [(table.column(name)[0], candles, span) for name, candles, span in fields]
    return [
        f"the state was computed across {count:.0f} missing {candles} candles of its last {span}"
        for count, candles, span in counts
        if count > 0
    ]


def _lacks(view: SymbolView, as_of_ms: Millis, state_ms: Millis, max_age_ms: Millis) -> list[str]:
    """Says so where the state lacks open interest or funding, which an older one may have."""
    missing = words_of_lacking(int(lacking(view.known_fields(state_ms))[0]))
    if not missing:
        return []
    warning = f"the state of {iso8601(state_ms)} lacks {missing}, and is compared without"
    complete_ms = view.newest_complete_ms(as_of_ms, max_age_ms)
    if complete_ms is not None:
        warning += f"; the newest state that lacks nothing is of {iso8601(complete_ms)}"
    return [warning]
