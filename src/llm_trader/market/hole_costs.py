"""What holes in imported candles cost: the quarter-hours without a state or without an outcome.

This is a count on the list of holes, not a build of states, so it is rough at the ends of a series:
it leaves out that the first states of any series wait for their indicators, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
import numpy as np

from llm_trader.market.candles import Gap
from llm_trader.market.derived_candles import ImportedSpan
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import DAY_MS, H4, HORIZONS, M1, M3, M5, MINUTE_MS, Millis, Timeframe

QUARTER_HOUR_MS: Final = 15 * MINUTE_MS
# The warm-up of `snapshot/`, which stands after this room: candles before a state.
INTRADAY_WARM_UP: Final = 300
FOUR_HOUR_WARM_UP: Final = 120
VOLATILITY_WARM_UP_MS: Final[Millis] = 7 * DAY_MS
# The windows of changes and of volatility: they begin with the close of a candle.
_WINDOWS_MS: Final = (*HORIZONS.values(), VOLATILITY_WARM_UP_MS)
# Recursive indicators go on across holes of so many candles.
MAX_HOLE_CANDLES: Final = 3


class HoleReport(msgspec.Struct, frozen=True):
    """Holes between the first and the last candle that was imported of a series.

    `longest` and `missing` count candles. Of the quarter-hours of this span, `without_state` have
    no state and `without_outcome` no outcome of 24h; `silenced` counts those with either. They are
    `None` for timeframes of which no states are made.
    """

    symbol: str
    timeframe: str
    holes: int
    missing: int
    longest: int
    quarter_hours: int
    without_state: int | None
    without_outcome: int | None
    silenced: int | None


def report_holes(
    symbol: str,
    spans: Iterable[ImportedSpan],
    store: MarketStore,
    max_hole_candles: int = MAX_HOLE_CANDLES,
) -> Iterator[HoleReport]:
    """For each imported timeframe below 4h that has holes. 4h candles must be built before."""
    by_timeframe: dict[Timeframe, list[ImportedSpan]] = {}
    for span in spans:
        by_timeframe.setdefault(span.timeframe, []).append(span)
    for timeframe, parts in sorted(by_timeframe.items()):
        start_ms, end_ms = min(p.start_ms for p in parts), max(p.end_ms for p in parts)
        holes = _holes(store, symbol, timeframe, start_ms, end_ms)
        if timeframe >= H4 or not holes:
            continue
        # States are made of 3m or 5m candles; 1m candles are there to build 3m ones.
        intraday = M3 if timeframe == M1 else timeframe
        costs: tuple[int | None, int | None, int | None] = (None, None, None)
        if intraday in (M3, M5):
            intraday_holes = _holes(store, symbol, intraday, start_ms, end_ms)
            four_hour_holes = _holes(store, symbol, H4, start_ms, end_ms)
            costs = silenced_quarter_hours(
                intraday_holes, intraday, four_hour_holes, start_ms, end_ms, max_hole_candles
            )
        yield HoleReport(
            symbol,
            str(timeframe),
            len(holes),
            sum(hole.missing for hole in holes),
            max(hole.missing for hole in holes),
            _count(start_ms, end_ms),
            *costs,
        )


def silenced_quarter_hours(
    intraday_holes: Iterable[Gap],
    intraday: Timeframe,
    four_hour_holes: Iterable[Gap],
    start_ms: Millis,
    end_ms: Millis,
    max_hole_candles: int = MAX_HOLE_CANDLES,
) -> tuple[int, int, int]:
    """Quarter-hours T of a span without a state, without an outcome, and with either missing.

    Of a hole whose candles open in [a, b), with candles of length c:

    - no state while the candle that closed last is missing: a + c <= T < b + c
    - nor while the one is that closed at the start of a window w: a + c + w <= T < b + c + w
    - after more than `max_hole_candles`, no state until indicators are warm again: T < b + 300 c,
      or b + 120 c for 4h candles
    - after as many intraday candles, none until a week of returns is there: T < b + 7 days
    - no outcome while the candle is missing that closes at a horizon h: a + c <= T + h < b + c
    """
    without_state: list[tuple[Millis, Millis]] = []
    without_outcome: list[tuple[Millis, Millis]] = []
    warm_up_ms = max(INTRADAY_WARM_UP * intraday.ms, VOLATILITY_WARM_UP_MS)
    for hole in intraday_holes:
        wait_ms = warm_up_ms if hole.missing > max_hole_candles else intraday.ms
        first_ms, after_ms = hole.start_ms + intraday.ms, hole.end_ms + intraday.ms
        without_state.append((first_ms, hole.end_ms + wait_ms))
        without_state += [(first_ms + w, after_ms + w) for w in _WINDOWS_MS]
        without_outcome += [(first_ms - h, after_ms - h) for h in HORIZONS.values()]
    for hole in four_hour_holes:
        candles = FOUR_HOUR_WARM_UP if hole.missing > max_hole_candles else 1
        without_state.append((hole.start_ms + H4.ms, hole.end_ms + candles * H4.ms))
    lists = without_state, without_outcome, [*without_state, *without_outcome]
    counts = [_count_union(intervals, start_ms, end_ms) for intervals in lists]
    return counts[0], counts[1], counts[2]


def _holes(
    store: MarketStore, symbol: str, timeframe: Timeframe, start_ms: Millis, end_ms: Millis
) -> list[Gap]:
    gaps = store.gaps(symbol, timeframe)
    return [gap for gap in gaps if gap.end_ms > start_ms and gap.start_ms < end_ms]


def _count(start_ms: Millis, end_ms: Millis) -> int:
    """The quarter-hours with `start_ms <= T < end_ms`."""
    return -(-end_ms // QUARTER_HOUR_MS) + (-start_ms // QUARTER_HOUR_MS)


def _count_union(intervals: list[tuple[Millis, Millis]], start_ms: Millis, end_ms: Millis) -> int:
    """The quarter-hours of a span in any of the intervals, each counted once."""
    bounds = np.clip(np.array(sorted(intervals), np.int64).reshape(-1, 2), start_ms, end_ms)
    count, covered_ms = 0, start_ms
    for first_ms, last_ms in bounds.tolist():
        first_ms = max(first_ms, covered_ms)
        if last_ms > first_ms:
            count += _count(first_ms, last_ms)
            covered_ms = last_ms
    return count
