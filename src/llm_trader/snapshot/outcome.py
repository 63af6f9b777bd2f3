"""The outcomes of snapshots: price changes afterwards, which become known at `resolved_at`."""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from llm_trader.arrays import Floats, Times
from llm_trader.market.candles import CandleSeries
from llm_trader.timeframe import HORIZONS, HOUR_MS, Millis

LONGEST_HORIZON_MS: Final[Millis] = max(HORIZONS.values())

STOP_LOSS_PCT: Final = -2.0
TAKE_PROFIT_PCT: Final = 3.0

NO_BARRIER, STOP_FIRST, TARGET_FIRST = 0.0, 1.0, 2.0
BARRIERS: Final = {NO_BARRIER: "none", STOP_FIRST: "stop", TARGET_FIRST: "target"}

OUTCOMES: Final = (
    *(f"outcome_{horizon}" for horizon in HORIZONS),
    *("max_runup_1h", "max_drawdown_1h", "first_barrier"),
)
OUTCOME_ROW: Final = {name: row for row, name in enumerate(OUTCOMES)}


class Outcome(msgspec.Struct, frozen=True):
    """Changes in % of the price at the snapshot; `None` if candles are missing."""

    outcome_15m: float | None
    outcome_1h: float | None
    outcome_4h: float | None
    outcome_24h: float | None
    max_runup_1h: float | None
    max_drawdown_1h: float | None
    hit_stop_loss: bool | None
    hit_take_profit: bool | None
    first_barrier: str | None

    @classmethod
    def of_values(cls, values: list[float]) -> Outcome:
        """The outcome of one column of a label table, in the order of `OUTCOMES`."""
        numbers = [None if v != v else v for v in values]
        in_15m, in_1h, in_4h, in_24h, runup, drawdown, barrier = numbers
        return cls(
            *(in_15m, in_1h, in_4h, in_24h, runup, drawdown),
            None if drawdown is None else drawdown <= STOP_LOSS_PCT,
            None if runup is None else runup >= TAKE_PROFIT_PCT,
            None if barrier is None else BARRIERS[barrier],
        )


def resolved_at(as_of_ms: Times) -> Times:
    """The times at which outcomes are fully known: after the longest horizon."""
    return np.asarray(as_of_ms + LONGEST_HORIZON_MS)


def label_outcomes(candles: CandleSeries, as_of_ms: Times) -> Floats:
    """Outcomes of snapshots at the given times, shape (outcomes, n), rows as in `OUTCOMES`.

    All are % of the close at the snapshot. Run-up (at least 0) and drawdown (at most 0) are the
    extremes of the following hour. `first_barrier` is the barrier, -2 % or +3 %, that the price
    touched first within 24h; both inside one candle count as the stop. NaN where a candle up to
    the horizon is missing.
    """
    step = candles.timeframe.ms
    labels = np.full((len(OUTCOMES), len(as_of_ms)), np.nan)
    row = np.searchsorted(candles.open_time_ms, as_of_ms - step)
    priced = np.flatnonzero(row < len(candles))
    priced = priced[candles.open_time_ms[row[priced]] == as_of_ms[priced] - step]
    for name, horizon_ms in HORIZONS.items():
        count = horizon_ms // step
        resolved, start_row = candles.followed_by(row, priced, count)
        change = _pct(candles.close[start_row + count], candles.close[start_row])
        labels[OUTCOME_ROW[f"outcome_{name}"], resolved] = change
    _label_extremes(labels, candles, row, priced)
    # In parts of one day, the 24-hour windows fit into the processor's cache.
    for part in np.array_split(priced, max(1, len(priced) // 96)):
        _label_barriers(labels, candles, row, part)
    return labels


def _pct(later: Floats, price: Floats) -> Floats:
    return (later / price - 1) * 100


def _label_extremes(labels: Floats, candles: CandleSeries, row: Times, priced: Times) -> None:
    count = HOUR_MS // candles.timeframe.ms
    resolved, start_row = candles.followed_by(row, priced, count)
    after = start_row[:, None] + np.arange(1, count + 1)
    price = candles.close[start_row]
    runup = _pct(candles.high[after].max(axis=1, initial=-np.inf), price)
    drawdown = _pct(candles.low[after].min(axis=1, initial=np.inf), price)
    labels[OUTCOME_ROW["max_runup_1h"], resolved] = np.maximum(runup, 0)
    labels[OUTCOME_ROW["max_drawdown_1h"], resolved] = np.minimum(drawdown, 0)


def _label_barriers(labels: Floats, candles: CandleSeries, row: Times, priced: Times) -> None:
    count = LONGEST_HORIZON_MS // candles.timeframe.ms
    resolved, start_row = candles.followed_by(row, priced, count)
    if not len(resolved):
        return
    after = start_row[:, None] + np.arange(1, count + 1)
    price = candles.close[start_row][:, None]
    # Compared in % like `hit_stop_loss`, so that a price on the barrier counts the same in both.
    stop = _pct(candles.low[after], price) <= STOP_LOSS_PCT
    target = _pct(candles.high[after], price) >= TAKE_PROFIT_PCT
    stop_at = np.where(stop.any(axis=1), stop.argmax(axis=1), count)
    target_at = np.where(target.any(axis=1), target.argmax(axis=1), count)
    first = np.where(stop_at <= target_at, STOP_FIRST, TARGET_FIRST)
    first[(stop_at == count) & (target_at == count)] = NO_BARRIER
    labels[OUTCOME_ROW["first_barrier"], resolved] = first
