"""What decisions would have earned: one position at a time on one symbol's candles.

1. A decision at T fills at the open of the candle that opens at T. Where a gap has swallowed that
   candle, the decision lapses: it opens and closes nothing.
2. At each open, in this order: a stop or target that the open lies beyond, the longest hold, the
   decision. Then the rest of the candle: the stop before the target where both are touched.
3. A stop beyond which the market opens fills at the open; a target never fills better than its
   price.
4. An open position rides through a gap. A position left at the end of the data is closed at the
   last close.

Fees and slippage are charged on the notional of each side, and the prices of trades are the
market's own, so that for every trade, in % of its entry notional,

    net = gross - fees - funding,    gross = ±(exit price / entry price - 1).

Each position's notional is the whole equity at its entry, without leverage. Equity begins at 1 and
after k trades is Π max(0, 1 + net/100): a loss ends where the stake does, and trading with it. A
short without a nearer stop is closed at twice its entry price.

Decisions may have a price of their own, as those of a language model do. Such bills are fractions
of the equity at the start, since they do not grow with it. Each is paid when its decision is made,
before its position is opened, from the equity there is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from llm_trader.arrays import Floats, Times
from llm_trader.errors import InvalidInputError
from llm_trader.llm.decision import Action, Decision
from llm_trader.market.candles import CandleSeries
from llm_trader.market.samples import FundingSeries
from llm_trader.timeframe import DAY_MS, MINUTE_MS, Millis
from llm_trader.trading.exits import Exit, ExitReason, OpenPosition, exit_at_open, exit_inside
from llm_trader.trading.rules import Costs, OppositeRule, TradingRules

Sides = npt.NDArray[np.int8]
Side = Literal["LONG", "SHORT"]

SIDES: Final[dict[Action, int]] = {"LONG": 1, "HOLD": 0, "SHORT": -1}

_PCT: Final = 100.0
_WHOLE_STAKE_PCT: Final = 100.0

BUY_AND_HOLD: Final = TradingRules(stop_pct=None, target_pct=None, longest_hold_ms=None)


class Trade(msgspec.Struct, frozen=True):
    """One position from entry to exit, in % of its entry notional.

    Inside a candle the moment of an exit is unknown: `exit_ms` is then the candle's last
    millisecond. `fees_pct` are fees and slippage of both sides; `funding_pct` is positive where
    the position paid, at each settlement with entry < time <= exit.
    """

    entry_ms: Millis
    exit_ms: Millis
    side: Side
    entry_price: float
    exit_price: float
    exit_reason: ExitReason
    gross_pct: float
    fees_pct: float
    funding_pct: float
    net_pct: float


@dataclass(frozen=True, slots=True, eq=False)
class Simulation:
    """Trades in time order, and equity at the n decision times, before the decision is filled.

    `time_ms` and `equity` have the shape (n,). An open position is marked at the candle's open, in
    a gap at the last close, less what it has paid so far. `final_equity` is that of `end_ms`, when
    all is closed: after the last candle, or at a decision that is later still.
    """

    trades: list[Trade]
    time_ms: Times
    equity: Floats
    end_ms: Millis
    final_equity: float


def sides_of(decisions: Iterable[Decision]) -> Sides:
    """Actions as 1 for LONG, -1 for SHORT, 0 for HOLD for any reason, shape (n,)."""
    return np.fromiter((SIDES[decision.action] for decision in decisions), np.int8)


def simulate(
    candles: CandleSeries,
    funding: FundingSeries,
    time_ms: Times,
    sides: Sides,
    costs: Costs | None = None,
    rules: TradingRules | None = None,
    bills: Floats | None = None,
) -> Simulation:
    """Trade the decisions `sides` (n,), made by `sides_of`, at the increasing times (n,).

    `bills` (n,) are what the decisions themselves cost, as fractions of the equity at the start.

    The candles are those of the traded time: positions live on after the last decision, as the
    rules let them. A settlement counts at the minute of its stamp, at the open of the candle
    there, in a gap at the last close; one that `funding` lacks costs nothing.

    Raises `InvalidInputError` for no candles, and for decisions out of order or off the candles'
    grid.
    """
    costs, rules = costs or Costs(), rules or TradingRules()
    _check(candles, time_ms, sides)
    spans = _positions(candles, _side_per_candle(candles, time_ms, sides), rules)
    payments = _Funding(candles, funding)
    trades = [_trade(span, payments, costs) for span in spans]
    billed = _Bills(time_ms, np.zeros(len(time_ms)) if bills is None else bills)
    stakes = _stakes(trades, billed)
    trades = trades[: len(stakes)]
    return Simulation(
        trades,
        time_ms,
        _equity(candles, trades, stakes, payments, costs, billed),
        max([_end_ms(candles), *time_ms[-1:].tolist()]),
        _final_equity(trades, stakes, billed),
    )


def single_results(
    candles: CandleSeries,
    funding: FundingSeries,
    time_ms: Times,
    sides: Sides,
    costs: Costs,
    rules: TradingRules,
) -> Floats:
    """The net result of each decision as a trade of its own, in % of its position, (n,).

    It ends by stop, target or the longest hold, after a day where there is none. A HOLD, and a
    decision in a gap, is 0. Raises like `simulate`.
    """
    _check(candles, time_ms, sides)
    hold_ms = DAY_MS if rules.longest_hold_ms is None else rules.longest_hold_ms
    rules = msgspec.structs.replace(rules, longest_hold_ms=hold_ms)
    payments, results = _Funding(candles, funding), np.zeros(len(time_ms))
    for i in np.flatnonzero(sides).tolist():
        entry_ms = int(time_ms[i])
        held = candles.between(entry_ms, entry_ms + hold_ms + candles.timeframe.ms)
        if len(held) and held.open_time_ms[0] == entry_ms:
            wishes = np.zeros(len(held), np.int8)
            wishes[0] = sides[i]
            # Without further decisions it is the only one that is ever opened.
            results[i] = _trade(_positions(held, wishes, rules)[0], payments, costs).net_pct
    return results


class _Span(NamedTuple):
    position: OpenPosition[float]
    exit: Exit[float]


def _check(candles: CandleSeries, time_ms: Times, sides: Sides) -> None:
    if not len(candles):
        raise InvalidInputError(
            "there are no candles to trade on; import them for the evaluated time"
        )
    if time_ms.ndim != 1 or time_ms.shape != sides.shape:
        raise InvalidInputError(
            f"{sides.shape} sides for {time_ms.shape} decision times: give one for each"
        )
    if (np.diff(time_ms) <= 0).any():
        raise InvalidInputError("the decision times do not increase; sort them")
    if (time_ms % candles.timeframe.ms != 0).any():
        raise InvalidInputError(
            f"decision times must lie on the {candles.timeframe} grid of the candles"
        )
    if not np.isin(sides, list(SIDES.values())).all():
        raise InvalidInputError("a side is 1, 0 or -1; make sides with `sides_of`")


def _end_ms(candles: CandleSeries) -> Millis:
    return int(candles.open_time_ms[-1]) + candles.timeframe.ms


def _side_per_candle(candles: CandleSeries, time_ms: Times, sides: Sides) -> Sides:
    """The side decided at each candle's open, 0 for none; decisions in gaps lapse."""
    per_candle = np.zeros(len(candles), np.int8)
    opens_ms = candles.open_time_ms
    _, rows, decisions = np.intersect1d(opens_ms, time_ms, assume_unique=True, return_indices=True)
    per_candle[rows] = sides[decisions]
    return per_candle


def _positions(candles: CandleSeries, sides: Sides, rules: TradingRules) -> list[_Span]:
    """All positions in time order."""
    # Plain numbers: a loop reads them several times faster than the elements of arrays.
    columns = (candles.open_time_ms, candles.open, candles.high, candles.low, sides)
    to_last_ms = candles.timeframe.ms - 1
    spans: list[_Span] = []
    position: OpenPosition[float] | None = None
    for time_ms, open_, high, low, side in zip(*(c.tolist() for c in columns), strict=True):
        if position is not None:
            end = exit_at_open(position, time_ms, open_)
            end = end or _exit_by_signal(position, time_ms, open_, side, rules.opposite)
            if end is not None:
                spans.append(_Span(position, end))
                position = None
                if end.reason == "signal" and rules.opposite == "close":
                    continue
        if position is None:
            if not side:
                continue
            position = _open_position(side, time_ms, open_, rules)
        end = exit_inside(position, high, low, time_ms + to_last_ms)
        if end is not None:
            spans.append(_Span(position, end))
            position = None
    if position is not None:
        spans.append(_Span(position, Exit(_end_ms(candles), float(candles.close[-1]), "end")))
    return spans


def _open_position(
    side: int, time_ms: Millis, price: float, rules: TradingRules
) -> OpenPosition[float]:
    stop_pct = _WHOLE_STAKE_PCT if rules.stop_pct is None else rules.stop_pct
    target = inf if rules.target_pct is None else rules.target_pct / _PCT
    deadline_ms = inf if rules.longest_hold_ms is None else time_ms + rules.longest_hold_ms
    stop_price, target_price = price * (1 - side * stop_pct / _PCT), price * (1 + side * target)
    return OpenPosition(side, time_ms, price, stop_price, target_price, deadline_ms)


def _exit_by_signal(
    position: OpenPosition[float], time_ms: Millis, open_: float, side: int, opposite: OppositeRule
) -> Exit[float] | None:
    if side == -position.side and opposite != "ignore":
        return Exit(time_ms, open_, "signal")
    return None


class _Funding:
    """What one unit of the asset, held long, has paid up to a time, in quote currency."""

    def __init__(self, candles: CandleSeries, funding: FundingSeries) -> None:
        # Stamps are late by some seconds, and a position that is closed on the hour still pays.
        due = funding.time_ms - funding.time_ms % MINUTE_MS
        traded = (due >= candles.open_time_ms[0]) & (due <= _end_ms(candles))
        self._due = due[traded]
        self._paid = np.append(0.0, np.cumsum(funding.rate[traded] * _marks(candles, self._due)))

    def until(self, time_ms: npt.NDArray[np.int64] | Millis) -> Floats:
        return np.asarray(self._paid[np.searchsorted(self._due, time_ms, side="right")])


def _marks(candles: CandleSeries, time_ms: Times) -> Floats:
    """Prices at times from the first open on: the candle's open, in a gap the last close."""
    rows = np.searchsorted(candles.open_time_ms, time_ms, side="right") - 1
    opens = candles.open_time_ms[rows] == time_ms
    return np.where(opens, candles.open[rows], candles.close[rows])


def _trade(span: _Span, funding: _Funding, costs: Costs) -> Trade:
    position, (exit_ms, exit_price, reason) = span
    price_ratio = exit_price / position.price
    paid = float(funding.until(exit_ms) - funding.until(position.entry_ms)) / position.price
    gross_pct = position.side * (price_ratio - 1) * _PCT
    fees_pct = costs.per_side * (1 + price_ratio) * _PCT
    funding_pct = position.side * paid * _PCT
    return Trade(
        position.entry_ms,
        exit_ms,
        "LONG" if position.side > 0 else "SHORT",
        position.price,
        exit_price,
        reason,
        gross_pct,
        fees_pct,
        funding_pct,
        gross_pct - fees_pct - funding_pct,
    )


class _Bills:
    """What the decisions have cost up to a time, as a fraction of the equity at the start."""

    def __init__(self, time_ms: Times, bills: Floats) -> None:
        self.time_ms = time_ms
        self._paid = np.append(0.0, np.cumsum(bills))

    def until(self, time_ms: Times | Millis) -> Floats:
        """Those of decisions up to a time, this one included."""
        return np.asarray(self._paid[np.searchsorted(self.time_ms, time_ms, side="right")])

    def before(self, time_ms: Times) -> Floats:
        return np.asarray(self._paid[np.searchsorted(self.time_ms, time_ms)])


def _stakes(trades: list[Trade], bills: _Bills) -> Floats:
    """Equity at the entry of each trade, shape (trades,), or up to the last that had any."""
    stakes: list[float] = []
    equity, paid = 1.0, 0.0
    for trade in trades:
        paid_by_entry = float(bills.until(trade.entry_ms))
        equity = max(0.0, equity - (paid_by_entry - paid))
        if not equity:
            break
        stakes.append(equity)
        equity, paid = equity * max(0.0, 1 + trade.net_pct / _PCT), paid_by_entry
    return np.array(stakes)


def _final_equity(trades: list[Trade], stakes: Floats, bills: _Bills) -> float:
    paid = float(bills.until(int(bills.time_ms[-1]))) if len(bills.time_ms) else 0.0
    if not len(stakes):
        return max(0.0, 1 - paid)
    paid -= float(bills.until(trades[len(stakes) - 1].entry_ms))
    last = float(stakes[-1]) * max(0.0, 1 + trades[len(stakes) - 1].net_pct / _PCT)
    return max(0.0, last - paid)


def _equity(
    candles: CandleSeries,
    trades: list[Trade],
    stakes: Floats,
    funding: _Funding,
    costs: Costs,
    bills: _Bills,
) -> Floats:
    """Equity at each time, before its fills and its bill, open positions marked to market."""
    time_ms = bills.time_ms
    entry_ms = np.array([trade.entry_ms for trade in trades], np.int64)
    exit_ms = np.array([trade.exit_ms for trade in trades], np.int64)
    net = np.array([trade.net_pct for trade in trades])
    after = np.append(1.0, stakes * np.maximum(0.0, 1 + net / _PCT))
    entries = np.searchsorted(entry_ms, time_ms)  # trades entered before each time
    equity = after[entries]
    in_position = np.flatnonzero(entries)
    in_position = in_position[exit_ms[entries[in_position] - 1] >= time_ms[in_position]]
    trade = entries[in_position] - 1
    open_ms = time_ms[in_position]
    price = np.array([trade.entry_price for trade in trades])[trade]
    side = np.array([SIDES[trade.side] for trade in trades])[trade]
    paid = (funding.until(open_ms) - funding.until(entry_ms[trade])) / price
    earned = side * (_marks(candles, open_ms) / price - 1 - paid) - costs.per_side
    equity[in_position] = stakes[trade] * np.maximum(0.0, 1 + earned)
    # A stake has paid the bills up to its entry.
    paid_before = np.append(0.0, bills.until(entry_ms))[entries]
    return np.asarray(np.maximum(0.0, equity - (bills.before(time_ms) - paid_before)))
