"""The outcomes of snapshots: price changes afterwards, which become known at `resolved_at`."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import numpy as np
from msgspec import Meta

from llm_trader.arrays import Floats, Mask, Times
from llm_trader.market.candles import CandleSeries
from llm_trader.timeframe import HORIZONS, HOUR_MS, Millis

LONGEST_HORIZON_MS: Final[Millis] = max(HORIZONS.values())

STOP_LOSS_PCT: Final = -2.0
TAKE_PROFIT_PCT: Final = 3.0

NO_BARRIER, STOP_FIRST, TARGET_FIRST = 0.0, 1.0, 2.0
BARRIERS: Final = {NO_BARRIER: "none", STOP_FIRST: "stop", TARGET_FIRST: "target"}

CHANGES: Final = tuple(f"outcome_{horizon}" for horizon in HORIZONS)
OUTCOMES: Final = (*CHANGES, "max_runup_1h", "max_drawdown_1h", "first_barrier")
# How the price reached its extremes within 24h: which of any two barriers it touched first.
# From 4,000 quarter-hours each, BTC and SOL made at most 7 turns; beyond 8 the smallest are lost.
TURNS: Final = 8
PATH: Final = (
    *(f"path_low_{turn}" for turn in range(1, TURNS + 1)),
    *(f"path_high_{turn}" for turn in range(1, TURNS + 2)),
)
# All that is stored of what follows a state.
LABELS: Final = (*OUTCOMES, *PATH)
LABEL_ROW: Final = {name: row for row, name in enumerate(LABELS)}
# They depend on every candle of their hour or day, and are unknown where one is missing.
EXTREMES: Final = LABELS[len(CHANGES) :]


class Outcome(msgspec.Struct, frozen=True):
    """Changes in % of the price at the snapshot; `None` if candles are missing."""

    outcome_15m: Annotated[float | None, Meta(description="Price change 15 minutes later, %.")]
    outcome_1h: Annotated[float | None, Meta(description="Price change 1 hour later, %.")]
    outcome_4h: Annotated[float | None, Meta(description="Price change 4 hours later, %.")]
    outcome_24h: Annotated[float | None, Meta(description="Price change 24 hours later, %.")]
    max_runup_1h: Annotated[
        float | None, Meta(description="Highest rise within 1 hour, %, at least 0.")
    ]
    max_drawdown_1h: Annotated[
        float | None, Meta(description="Deepest fall within 1 hour, %, at most 0.")
    ]
    hit_stop_loss: Annotated[
        bool | None, Meta(description="Whether the price was 2 % lower at some time within 1 hour.")
    ]
    hit_take_profit: Annotated[
        bool | None,
        Meta(description="Whether the price was 3 % higher at some time within 1 hour."),
    ]
    first_barrier: Annotated[
        str | None,
        Meta(
            description="What the price touched first within 24 hours, unlike `hit_stop_loss`: "
            "`stop` (-2 %), `target` (+3 %) or `none`."
        ),
    ]

    @classmethod
    def of_values(cls, values: list[float]) -> Outcome:
        """The outcome of one column of a label table, whose first values are the `OUTCOMES`."""
        numbers = [None if v != v else v for v in values[: len(OUTCOMES)]]
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
    """Outcomes of snapshots at the given times, shape (labels, n), rows as in `LABELS`.

    All are % of the close at the snapshot. Run-up (at least 0) and drawdown (at most 0) are the
    extremes of the following hour. `first_barrier` is the barrier, -2 % or +3 %, that the price
    touched first within 24h; both inside one candle count as the stop. The path is that of
    `first_touches`. A change is NaN where the candle that closes at its horizon is missing, the
    others where any candle up to theirs is. All are where the price jumps before their horizon
    (`market/jumps.py`) and nobody has accepted that.
    """
    labels = np.full((len(LABELS), len(as_of_ms)), np.nan)
    row, is_priced = candles.last_closed(as_of_ms)
    is_priced &= as_of_ms % candles.timeframe.ms == 0
    priced = np.flatnonzero(is_priced)
    for name, horizon_ms in HORIZONS.items():
        resolved, start_row, end_row = candles.closed_later(row, priced, horizon_ms)
        change = _pct(candles.close[end_row], candles.close[start_row])
        labels[LABEL_ROW[f"outcome_{name}"], resolved] = change
    _label_extremes(labels, candles, row, priced)
    # In parts of one day, the 24-hour windows fit into the processor's cache.
    for part in np.array_split(priced, max(1, len(priced) // 96)):
        _label_day(labels, candles, row, part)
    return labels


def jump_follows(candles: CandleSeries, as_of_ms: Times) -> Mask:
    """Whether an unaccepted jump arrives within the longest horizon after each time, shape (n,)."""
    ends = as_of_ms, as_of_ms + LONGEST_HORIZON_MS
    before, after = (np.searchsorted(candles.jumps_ms, end) for end in ends)
    return np.asarray(after > before)


def _pct(later: Floats, price: Floats) -> Floats:
    return (later / price - 1) * 100


def _label_extremes(labels: Floats, candles: CandleSeries, row: Times, priced: Times) -> None:
    count = HOUR_MS // candles.timeframe.ms
    resolved, start_row = candles.followed_by(row, priced, count)
    after = start_row[:, None] + np.arange(1, count + 1)
    price = candles.close[start_row]
    runup = _pct(candles.high[after].max(axis=1, initial=-np.inf), price)
    drawdown = _pct(candles.low[after].min(axis=1, initial=np.inf), price)
    labels[LABEL_ROW["max_runup_1h"], resolved] = np.maximum(runup, 0)
    labels[LABEL_ROW["max_drawdown_1h"], resolved] = np.minimum(drawdown, 0)


def _label_day(labels: Floats, candles: CandleSeries, row: Times, priced: Times) -> None:
    count = LONGEST_HORIZON_MS // candles.timeframe.ms
    resolved, start_row = candles.followed_by(row, priced, count)
    if not len(resolved):
        return
    after = start_row[:, None] + np.arange(1, count + 1)
    price = candles.close[start_row][:, None]
    # Compared in % like `hit_stop_loss`, so that a price on the barrier counts the same in both.
    lows, highs = _pct(candles.low[after], price), _pct(candles.high[after], price)
    stop, target = lows <= STOP_LOSS_PCT, highs >= TAKE_PROFIT_PCT
    stop_at = np.where(stop.any(axis=1), stop.argmax(axis=1), count)
    target_at = np.where(target.any(axis=1), target.argmax(axis=1), count)
    first = np.where(stop_at <= target_at, STOP_FIRST, TARGET_FIRST)
    first[(stop_at == count) & (target_at == count)] = NO_BARRIER
    labels[LABEL_ROW["first_barrier"], resolved] = first
    labels[LABEL_ROW[PATH[0]] :, resolved] = _path(-lows, highs)


def _path(falls: Floats, rises: Floats) -> Floats:
    """The path of prices (n, candles) below and above the start, shape (path, n), as in `PATH`.

    A turn is where the price falls lower than before after it rose higher than before: its low is
    the lowest until the next turn, its high the highest before it fell so low. The last turn
    stands last, and what is left of the places before it is 0; the last high is that of all.
    """
    n = len(falls)
    lowest = np.maximum.accumulate(np.maximum(falls, 0), axis=1)
    highest = np.maximum.accumulate(np.maximum(rises, 0), axis=1)
    fell = np.diff(lowest, axis=1, prepend=0.0) > 0
    row = np.nonzero(fell)[0]
    low = lowest[fell]
    # Both in one candle count as the stop, so the highs before the candle count.
    high = np.concatenate([np.zeros((n, 1)), highest[:, :-1]], axis=1)[fell]
    is_last = np.append((row[1:] != row[:-1]) | (high[1:] != high[:-1]), True)[: len(row)]
    row, low, high = row[is_last], low[is_last], high[is_last]
    place = TURNS - (np.searchsorted(row, row, side="right") - np.arange(len(row)))
    kept = place >= 0
    path = np.zeros((len(PATH), n))
    path[place[kept], row[kept]] = low[kept]
    path[TURNS + place[kept], row[kept]] = high[kept]
    path[-1] = highest[:, -1]
    return path


def first_touches(path: Floats, stop_pct: Floats, target_pct: Floats) -> tuple[Mask, Mask]:
    """Which paths (path, n) touch a stop that far below, or a target that far above, first; (n,).

    Distances (n,) are above 0. Both inside one candle count as the stop.
    """
    lows, highs = path[:TURNS], path[TURNS:]
    stopped, reached = lows[-1] >= stop_pct, highs[-1] >= target_pct
    touch_both = np.flatnonzero(stopped & reached)
    # At the first turn whose low reached the stop, the price had risen that far before.
    risen_before = highs[TURNS - 1, touch_both]
    row, places = TURNS - 1, np.arange(len(touch_both))
    while row and len(places):
        row -= 1
        places = places[lows[row, touch_both[places]] >= stop_pct[touch_both[places]]]
        risen_before[places] = highs[row, touch_both[places]]
    target_first = reached & ~stopped
    target_first[touch_both] = risen_before >= target_pct[touch_both]
    return stopped & ~target_first, target_first


def mirrored_labels(labels: Floats) -> Floats:
    """What would have followed if every later price had lain as far on the other side of the start.

    Rows as in `LABELS`, (labels, n). Changes get the other sign, run-up and drawdown trade places,
    and the path swaps its falls and rises, from which the first barrier is decided anew. Two things
    are lost in a stored path: a candle that reached new extremes on both sides counts as rising
    first here, where it counted as falling first; and of nine turns the smallest is left out.
    """
    mirrored = labels.copy()
    changes = [LABEL_ROW[name] for name in CHANGES]
    runup, drawdown = LABEL_ROW["max_runup_1h"], LABEL_ROW["max_drawdown_1h"]
    # Subtracted from 0, as a negated 0 would be shown as -0.
    mirrored[changes] = 0 - labels[changes]
    mirrored[runup], mirrored[drawdown] = 0 - labels[drawdown], 0 - labels[runup]
    path = _mirrored_path(labels[LABEL_ROW[PATH[0]] :])
    mirrored[LABEL_ROW[PATH[0]] :] = path
    n = labels.shape[1]
    stop_first, target_first = first_touches(
        path, np.full(n, -STOP_LOSS_PCT), np.full(n, TAKE_PROFIT_PCT)
    )
    first = np.select([stop_first, target_first], [STOP_FIRST, TARGET_FIRST], NO_BARRIER)
    mirrored[LABEL_ROW["first_barrier"]] = np.where(np.isnan(path[0]), np.nan, first)
    return mirrored


def _mirrored_path(path: Floats) -> Floats:
    """A path (path, n) with falls and rises swapped.

    The price went to high 1, low 1, high 2, low 2 and so on, and at last to high 9. So it fell to
    high 1 without a rise before it, then rose to low 1, then fell to high 2.
    """
    lows, highs = path[:TURNS], path[TURNS:]
    # Nothing before the first fall, but unknown where the path is.
    before = np.concatenate([0 * lows[:1], lows])
    # Where the last rise is the highest, it is the last fall of the mirrored path.
    rises_last = highs[-1] > highs[-2]
    return np.concatenate(
        [
            np.where(rises_last, highs[1:], highs[:-1]),
            np.where(rises_last, before[1:], before[:-1]),
            lows[-1:],
        ]
    )
