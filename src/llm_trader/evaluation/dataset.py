"""The data of an evaluation: labelled states of some symbols, made from a market store.

Points are made in memory by the same code as at ingestion: no index is needed, and none can have
been made by another version. They include the lookback before the evaluated time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from llm_trader.embedding.state import StateSpace
from llm_trader.errors import InvalidInputError
from llm_trader.index.asof import Window
from llm_trader.index.ingestion import IngestPlan, Spaces, make_points
from llm_trader.index.points import STATE, TEXT, PointTable, joined
from llm_trader.index.protocol import VectorIndex
from llm_trader.market.store import MarketStore
from llm_trader.progress import Progress, no_progress
from llm_trader.snapshot.builder import DEFAULT_RULES, SnapshotRules
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS
from llm_trader.snapshot.source import read_history
from llm_trader.timeframe import DAY_MS, MAX_TIME_MS, MINUTE_MS, Millis, Timeframe, iso8601

# Indicators of 4h candles need 120 candles, 20 days, before the first state.
WARM_UP_DAYS: Final = 21

_BATCH_DAYS: Final = 16


@dataclass(frozen=True, slots=True)
class Dataset:
    """All points of a walk by symbol, queries included, and how they were made.

    `start_ms` and `end_ms` are the first and the last time of a query.
    """

    points: Mapping[str, PointTable]
    intraday: Timeframe
    exchange: str | None
    start_ms: Millis
    end_ms: Millis
    text_space_id: str | None = None
    rules: SnapshotRules = DEFAULT_RULES

    def queries(self, symbol: str, step_ms: Millis) -> PointTable:
        """The states of the evaluated time, one each step."""
        points = self.points[symbol]
        times_ms = points.timestamp_ms
        evaluated = (times_ms >= self.start_ms) & (times_ms <= self.end_ms)
        return points.take(np.flatnonzero(evaluated & (times_ms % step_ms == 0)))

    def trimmed(self, step_ms: Millis) -> Dataset:
        """From the first to the last query, without the points after it.

        Raises `InvalidInputError` where a symbol has no query.
        """
        times_ms = [self.queries(symbol, step_ms).timestamp_ms for symbol in self.points]
        if not all(map(len, times_ms)):
            raise InvalidInputError(
                f"each symbol needs a state every {step_ms // MINUTE_MS} minutes from "
                f"{iso8601(self.start_ms)} to {iso8601(self.end_ms)}; see: llm-trader data info"
            )
        start_ms = min(int(times[0]) for times in times_ms)
        end_ms = max(int(times[-1]) for times in times_ms)
        points = {
            symbol: table.take(table.timestamp_ms <= end_ms)
            for symbol, table in self.points.items()
        }
        return replace(self, points=points, start_ms=start_ms, end_ms=end_ms)

    def partial_states(self) -> dict[str, int]:
        """By symbol, the states that are compared without open interest or funding."""
        return {
            symbol: int(np.count_nonzero(table.lacking())) for symbol, table in self.points.items()
        }

    def lacked_by_all(self) -> int:
        """The kind of what all its states lack, a bit for each of `OPTIONAL`."""
        kinds = np.concatenate([table.lacking() for table in self.points.values()])
        return int(np.bitwise_and.reduce(kinds))

    def digest(self) -> str:
        """12 hex digits of the SHA-256 of all its data."""
        digest = hashlib.sha256(f"{self.start_ms} {self.end_ms}".encode())
        for symbol, points in sorted(self.points.items()):
            digest.update(symbol.encode())
            for array in (points.timestamp_ms, points.values, *points.vectors.values()):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:12]


def read_dataset(
    store: MarketStore,
    spaces: Spaces,
    symbols: list[str],
    start_ms: Millis,
    end_ms: Millis,
    *,
    lookback_days: int,
    interval_ms: Millis,
    now_ms: Millis = MAX_TIME_MS,
    progress: Progress = no_progress,
) -> Dataset:
    """The labelled states from one lookback before `start_ms` to `end_ms`.

    Candles that close after `now_ms` give no outcome. Raises `InvalidInputError` where a symbol has
    no labelled state in the evaluated time.
    """
    tables = {}
    for symbol in symbols:
        plan = IngestPlan(
            start_ms=start_ms - (lookback_days + 1) * DAY_MS,
            end_ms=end_ms,
            interval_ms=interval_ms,
            batch_days=_BATCH_DAYS,
        )
        points = _points(store, spaces, symbol, plan, now_ms, progress)
        if points is None or points.timestamp_ms[-1] < start_ms:
            raise InvalidInputError(
                f"the store has no labelled state of {symbol} from {iso8601(start_ms)} to "
                f"{iso8601(end_ms)}; see: llm-trader data info"
            )
        tables[symbol] = points
    span = start_ms, end_ms
    return Dataset(tables, spaces.state.intraday, store.exchange, *span, rules=spaces.rules)


async def read_index(
    index: VectorIndex,
    space: StateSpace,
    symbols: list[str],
    start_ms: Millis,
    end_ms: Millis,
    *,
    lookback_days: int,
    rules: SnapshotRules = DEFAULT_RULES,
) -> Dataset:
    """The same states from an index made by these rules, with all the vectors that it has.

    Raises `InvalidInputError` for an index of other features, and where a symbol has no state in
    the evaluated time.
    """
    collection = index.collection
    if collection.state_space_id != space.space_id:
        raise InvalidInputError(
            f"the index has features of {collection.feature_version} "
            f"({collection.state_space_id}), this version makes {space.space_id}; rebuild it with: "
            "llm-trader index rebuild"
        )
    names = (STATE, TEXT) if collection.text_space_id else (STATE,)
    window = Window(start_ms - (lookback_days + 1) * DAY_MS, end_ms + LONGEST_HORIZON_MS)
    tables = {symbol: await index.scan(symbol, window, names) for symbol in symbols}
    for symbol, points in tables.items():
        if not len(points) or points.timestamp_ms[-1] < start_ms:
            raise InvalidInputError(
                f"the index has no state of {symbol} from {iso8601(start_ms)} to "
                f"{iso8601(end_ms)}; add them with: llm-trader ingest"
            )
    text_space_id = collection.text_space_id
    span = start_ms, end_ms
    return Dataset(tables, space.intraday, collection.exchange, *span, text_space_id, rules)


def _points(
    store: MarketStore,
    spaces: Spaces,
    symbol: str,
    plan: IngestPlan,
    now_ms: Millis,
    progress: Progress,
) -> PointTable | None:
    intraday = spaces.state.intraday
    stored = store.first_and_last_ms(symbol, intraday)
    if stored is None:
        return None
    known_until_ms = min(stored[1] + intraday.ms, now_ms)
    times = plan.grid(stored[0] + intraday.ms, known_until_ms)
    parts, done = [], 0
    for batch in plan.batches(times):
        until_ms = int(batch[-1]) + LONGEST_HORIZON_MS
        history = read_history(store, symbol, intraday, int(batch[0]), until_ms)
        points, _ = make_points(history, spaces, batch, known_until_ms, 1)
        parts.append(points)
        done += len(batch)
        progress(symbol, done, len(times))
    parts = [part for part in parts if len(part)]
    return joined(parts) if parts else None
