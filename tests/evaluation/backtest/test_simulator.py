from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.arrays import Times
from llm_trader.errors import InvalidInputError
from llm_trader.evaluation.backtest.simulator import (
    BUY_AND_HOLD,
    Sides,
    Simulation,
    Trade,
    sides_of,
    simulate,
    single_results,
)
from llm_trader.llm.decision import Decision
from llm_trader.market.candles import CandleSeries
from llm_trader.market.samples import FundingSeries
from llm_trader.timeframe import HOUR_MS, M5, M15, MINUTE_MS, Millis
from llm_trader.trading.rules import Costs, TradingRules
from tests.evaluation.backtest.slow_simulator import slow_simulation
from tests.market.builders import EMPTY_FUNDING, START_MS, no_candles

FREE = Costs(taker_fee_bps=0, slippage_bps=0)
QUARTER_MS = 15 * MINUTE_MS
Prices = tuple[float, float, float, float]


def quarters(candles: dict[int, Prices]) -> CandleSeries:
    """Candles of 15 minutes by their slot since the start: open, high, low, close."""
    rows = np.array(list(candles.values()), dtype=np.float64)
    return CandleSeries.validated(
        M15,
        {
            "open_time_ms": [at(slot) for slot in candles],
            **{name: rows[:, i] for i, name in enumerate(("open", "high", "low", "close"))},
            "volume": np.ones(len(rows)),
        },
    )


def at(slot: int) -> Millis:
    return START_MS + slot * QUARTER_MS


def funding(*settled: tuple[Millis, float]) -> FundingSeries:
    return FundingSeries.validated(
        {
            "time_ms": [time for time, _ in settled],
            "rate": [rate for _, rate in settled],
            "interval_hours": [8.0] * len(settled),
        }
    )


def decide(
    candles: dict[int, Prices],
    wishes: dict[int, int],
    rules: TradingRules = BUY_AND_HOLD,
    costs: Costs = FREE,
    paid: FundingSeries = EMPTY_FUNDING,
) -> Simulation:
    times = np.array([at(slot) for slot in wishes], np.int64)
    sides = np.array(list(wishes.values()), np.int8)
    return simulate(quarters(candles), paid, times, sides, costs, rules)


def told(trade: Trade) -> tuple[str, int, float, float, str]:
    """Side, entry slot, both prices and the reason."""
    slot = (trade.entry_ms - START_MS) // QUARTER_MS
    return trade.side, slot, trade.entry_price, trade.exit_price, trade.exit_reason


def flat(price: float) -> Prices:
    return price, price, price, price


# Three candles that rise from 100 to 110, then one at 110.
RISE: dict[int, Prices] = {
    0: (100, 101, 99, 101),
    1: (102, 106, 102, 105),
    2: (105, 110, 104, 110),
    3: flat(110),
}


def test_a_long_worked_by_hand() -> None:
    """Entry at 102, settlement of 0.1 % at 105, exit by the opposite signal at 110."""
    costs = Costs(taker_fee_bps=5, slippage_bps=1)
    rules = msgspec.structs.replace(BUY_AND_HOLD, opposite="close")
    run = decide(RISE, {0: 0, 1: 1, 2: 0, 3: -1}, rules, costs, funding((at(2), 0.001)))
    (trade,) = run.trades
    assert told(trade) == ("LONG", 1, 102, 110, "signal")
    assert trade.exit_ms == at(3)
    assert trade.gross_pct == pytest.approx(8 / 102 * 100)
    assert trade.fees_pct == pytest.approx(0.06 + 0.06 * 110 / 102)
    assert trade.funding_pct == pytest.approx(0.1 * 105 / 102)
    after = 1 + (8 - 0.0006 * (102 + 110) - 0.001 * 105) / 102
    assert run.final_equity == pytest.approx(after)
    marked = [1 + (price - 102 - 0.0006 * 102 - 0.001 * 105) / 102 for price in (105, 110)]
    assert run.equity == pytest.approx([1, 1, *marked])


def test_a_short_earns_what_a_long_loses_and_receives_what_a_long_pays() -> None:
    paid = funding((at(2), 0.001))
    (long,), (short,) = (decide(RISE, {1: side}, paid=paid).trades for side in (1, -1))
    assert (short.gross_pct, short.funding_pct) == (-long.gross_pct, -long.funding_pct)
    assert short.funding_pct < 0 < long.funding_pct


@pytest.mark.parametrize(
    ("stamp", "pays"),
    [
        (at(1), False),  # the position is opened at that moment
        (at(1) + 3_000, False),  # the same settlement, stamped late
        (at(2), True),
        (at(2) + 40, True),
        (at(3), True),  # and closed at this one
        (at(3) + 5_000, True),
        (at(3) + MINUTE_MS, False),
    ],
)
def test_a_settlement_is_paid_by_whoever_held_the_position_before_it(
    stamp: Millis, pays: bool
) -> None:
    rules = msgspec.structs.replace(BUY_AND_HOLD, opposite="close")
    (trade,) = decide(RISE, {1: 1, 3: -1}, rules, paid=funding((stamp, 0.001))).trades
    assert (trade.funding_pct != 0) is pays


def test_a_position_stopped_inside_a_candle_is_gone_at_the_next_settlement() -> None:
    candles = {0: (100.0, 100.0, 97.0, 99.0), 1: flat(99.0)}
    (trade,) = decide(candles, {0: 1}, TradingRules(), paid=funding((at(1), 0.001))).trades
    assert trade.exit_reason == "stop"
    assert trade.exit_ms == at(1) - 1
    assert trade.funding_pct == 0


STOP_AND_TARGET = TradingRules(stop_pct=2, target_pct=3, longest_hold_ms=None)


@pytest.mark.parametrize(
    ("side", "second", "price", "reason", "inside"),
    [
        (1, (100, 101, 98, 100), 98, "stop", True),
        (1, (100, 103, 99, 100), 103, "target", True),
        (1, (100, 103, 98, 102), 98, "stop", True),
        (1, (95, 96, 94, 96), 95, "stop", False),
        (1, (98, 99, 97, 98), 98, "stop", False),
        (1, (103, 104, 90, 95), 103, "target", False),
        (1, (105, 106, 104, 106), 103, "target", False),
        (1, (105, 106, 90, 90), 103, "target", False),
        (-1, (100, 102, 99, 100), 102, "stop", True),
        (-1, (100, 101, 97, 100), 97, "target", True),
        (-1, (100, 102, 97, 98), 102, "stop", True),
        (-1, (105, 106, 104, 106), 105, "stop", False),
        (-1, (95, 96, 94, 96), 97, "target", False),
    ],
)
def test_stops_and_targets_fill_at_their_price_and_never_better(
    side: int, second: Prices, price: float, reason: str, inside: bool
) -> None:
    run = decide({0: flat(100), 1: second, 2: flat(100)}, {0: side}, STOP_AND_TARGET)
    (trade,) = run.trades
    assert trade.exit_price == pytest.approx(price)
    assert trade.exit_reason == reason
    assert trade.exit_ms == (at(2) - 1 if inside else at(1))


def test_the_candle_of_the_entry_can_stop_it() -> None:
    (trade,) = decide({0: (100, 100, 97, 99), 1: flat(99)}, {0: 1}, STOP_AND_TARGET).trades
    assert (trade.exit_price, trade.exit_ms) == (98, at(1) - 1)


def test_the_longest_hold_ends_at_an_open_and_a_decision_there_opens_anew() -> None:
    candles = {slot: flat(100 + slot) for slot in range(7)}
    rules = TradingRules(stop_pct=None, target_pct=None, longest_hold_ms=2 * QUARTER_MS)
    run = decide(candles, {0: 1, 1: 1, 2: 1, 3: 0}, rules)
    assert [told(trade) for trade in run.trades] == [
        ("LONG", 0, 100, 102, "time"),
        ("LONG", 2, 102, 104, "time"),
    ]


@pytest.mark.parametrize(
    ("opposite", "expected"),
    [
        ("reverse", [("LONG", 0, 100, 102, "signal"), ("SHORT", 2, 102, 104, "end")]),
        ("close", [("LONG", 0, 100, 102, "signal"), ("SHORT", 3, 103, 104, "end")]),
        ("ignore", [("LONG", 0, 100, 104, "end")]),
    ],
)
def test_an_opposite_decision_reverses_closes_or_is_ignored(
    opposite: Any, expected: list[Any]
) -> None:
    candles = {slot: flat(100 + slot) for slot in range(5)}
    rules = msgspec.structs.replace(BUY_AND_HOLD, opposite=opposite)
    run = decide(candles, {0: 1, 1: 0, 2: -1, 3: -1}, rules)
    assert [told(trade) for trade in run.trades] == expected


def test_a_decision_in_a_gap_lapses_and_a_position_rides_through_it() -> None:
    candles = {0: flat(100), 1: flat(100), 4: flat(99), 5: flat(99)}
    run = decide(candles, {0: 1, 2: -1, 3: -1, 4: 0}, STOP_AND_TARGET)
    assert [told(trade) for trade in run.trades] == [("LONG", 0, 100, 99, "end")]
    assert run.equity == pytest.approx([1, 1, 1, 0.99])
    assert decide(candles, {2: 1, 3: 1}).trades == []


def test_a_stop_passed_in_a_gap_fills_at_the_open_after_it() -> None:
    candles = {0: flat(100), 3: flat(90)}
    (trade,) = decide(candles, {0: 1}, STOP_AND_TARGET).trades
    assert (trade.exit_price, trade.exit_ms, trade.exit_reason) == (90, at(3), "stop")


def test_a_hold_that_runs_out_in_a_gap_ends_at_the_open_after_it() -> None:
    candles = {0: flat(100), 3: flat(101), 4: flat(102)}
    rules = TradingRules(longest_hold_ms=QUARTER_MS)
    (trade,) = decide(candles, {0: 1}, rules).trades
    assert (trade.exit_price, trade.exit_ms, trade.exit_reason) == (101, at(3), "time")


def test_a_settlement_in_a_gap_is_paid_on_the_last_close() -> None:
    candles = {0: (100.0, 120.0, 100.0, 120.0), 3: flat(110.0)}
    (trade,) = decide(candles, {0: 1}, paid=funding((at(2), 0.01))).trades
    assert trade.funding_pct == pytest.approx(1.2)


def test_what_is_open_at_the_end_of_the_data_is_closed_at_the_last_close() -> None:
    run = decide(RISE, {0: 1})
    (trade,) = run.trades
    assert (trade.exit_price, trade.exit_reason, trade.exit_ms) == (110, "end", at(4))
    assert run.end_ms == at(4)
    assert run.final_equity == pytest.approx(1.1)


def test_decisions_before_and_after_the_data_trade_nothing() -> None:
    run = decide(RISE, {-2: 1, 7: -1})
    assert (run.trades, run.final_equity, run.end_ms) == ([], 1.0, at(7))
    assert run.equity.tolist() == [1.0, 1.0]


def test_a_short_cannot_lose_more_than_its_stake() -> None:
    run = decide({0: flat(100), 1: (150, 250, 150, 240), 2: flat(10)}, {0: -1, 2: 1})
    assert told(run.trades[0]) == ("SHORT", 0, 100, 200, "stop")
    gap = decide({0: flat(100), 1: flat(300), 2: flat(300)}, {0: -1, 1: 0, 2: 1})
    assert gap.trades[0].net_pct == pytest.approx(-200)
    assert (gap.final_equity, gap.equity.tolist()) == (0, [1, 0, 0])
    assert len(gap.trades) == 1


def test_decisions_become_sides() -> None:
    decisions = [
        Decision("LONG", 0.6, ""),
        Decision("SHORT", 0.6, ""),
        Decision.hold("error", ""),
    ]
    assert sides_of(decisions).tolist() == [1, -1, 0]
    assert sides_of([]).shape == (0,)


@pytest.mark.parametrize(
    ("times", "sides"),
    [
        ([at(1), at(0)], [1, 1]),
        ([at(0), at(0)], [1, 1]),
        ([at(0) + MINUTE_MS], [1]),
        ([at(0)], [2]),
        ([at(0), at(1)], [1]),
    ],
)
def test_decisions_that_fit_no_candle_are_refused(times: list[int], sides: list[int]) -> None:
    with pytest.raises(InvalidInputError):
        simulate(quarters(RISE), EMPTY_FUNDING, np.array(times), np.array(sides, np.int8))


def test_no_candles_are_refused_and_no_decisions_are_not() -> None:
    none = np.empty(0, np.int64), np.empty(0, np.int8)
    with pytest.raises(InvalidInputError):
        simulate(no_candles(M5), EMPTY_FUNDING, *none)
    run = simulate(quarters(RISE), EMPTY_FUNDING, *none)
    assert (run.trades, run.final_equity, len(run.equity)) == ([], 1.0, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"stop_pct": 0.0},
        {"stop_pct": 101.0},
        {"target_pct": -1.0},
        {"target_pct": float("nan")},
        {"longest_hold_ms": 0},
        {"opposite": "double"},
    ],
)
def test_rules_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        TradingRules(**wrong)
    with pytest.raises(InvalidInputError):
        Costs(taker_fee_bps=-1)


class Market(NamedTuple):
    """A random market of 5-minute candles with holes and jumps, and decisions on it."""

    candles: CandleSeries
    funding: FundingSeries
    time_ms: Times
    sides: Sides


def market(seed: int, slots: int = 240) -> Market:
    draw = np.random.default_rng(seed)
    there = draw.random(slots) > draw.choice([0.0, 0.05, 0.3])
    there[0] = True
    n = int(there.sum())
    jumps = draw.standard_normal(n) * draw.choice([0.001, 0.02])
    moves = draw.standard_normal(n) * draw.choice([0.002, 0.01, 0.04])
    close = 100 * np.exp(np.cumsum(jumps + moves))
    open_ = close / np.exp(moves)
    tails = np.exp(np.abs(draw.standard_normal((2, n))) * 0.005)
    candles = CandleSeries.validated(
        M5,
        {
            "open_time_ms": START_MS + np.flatnonzero(there) * M5.ms,
            "open": open_,
            "high": np.maximum(open_, close) * tails[0],
            "low": np.minimum(open_, close) / tails[1],
            "close": close,
            "volume": np.ones(n),
        },
    )
    hours = START_MS + np.arange(slots // 12 + 2) * HOUR_MS + draw.integers(0, 9_000)
    rates = {
        "time_ms": hours,
        "rate": draw.standard_normal(len(hours)) * 0.003,
        "interval_hours": np.ones(len(hours)),
    }
    every = int(draw.choice([1, 3]))
    times = START_MS + np.arange(0, slots, every, dtype=np.int64) * M5.ms
    busy = draw.choice([0.02, 0.3, 1.0])
    sides = (draw.integers(-1, 2, len(times)) * (draw.random(len(times)) < busy)).astype(np.int8)
    return Market(candles, FundingSeries.validated(rates), times, sides)


markets = st.integers(0, 2**32 - 1).map(market)
any_costs = st.builds(
    Costs, taker_fee_bps=st.sampled_from([0.0, 5.5, 50.0]), slippage_bps=st.sampled_from([0.0, 1.0])
)
any_rules = st.builds(
    TradingRules,
    stop_pct=st.sampled_from([None, 0.5, 2.0, 10.0]),
    target_pct=st.sampled_from([None, 0.5, 3.0]),
    longest_hold_ms=st.sampled_from([None, 7 * MINUTE_MS, HOUR_MS, 4 * HOUR_MS]),
    opposite=st.sampled_from(["reverse", "close", "ignore"]),
)


@given(markets, any_costs, any_rules)
@pytest.mark.soak
def test_an_account_kept_slot_by_slot_comes_to_the_same(
    market: Market, costs: Costs, rules: TradingRules
) -> None:
    run = simulate(*market, costs, rules)
    account = slow_simulation(*market, costs, rules)
    exits = [(trade.exit_ms, trade.exit_price, trade.exit_reason) for trade in run.trades]
    assert [(e[0], e[2]) for e in exits] == [(e[0], e[2]) for e in account.exits]
    assert [e[1] for e in exits] == pytest.approx([e[1] for e in account.exits])
    assert run.final_equity == pytest.approx(account.cash, rel=1e-9)
    end_ms = int(market.candles.open_time_ms[-1]) + M5.ms
    within = market.time_ms <= end_ms
    marked = [account.equity_at[time] for time in market.time_ms[within].tolist()]
    assert run.equity[within] == pytest.approx(marked, rel=1e-9)
    assert (run.equity[~within] == run.final_equity).all()


@given(markets, any_costs, any_rules)
def test_every_trade_and_the_equity_add_up(
    market: Market, costs: Costs, rules: TradingRules
) -> None:
    run = simulate(*market, costs, rules)
    equity = 1.0
    for trade in run.trades:
        side = 1 if trade.side == "LONG" else -1
        change = (trade.exit_price / trade.entry_price - 1) * 100
        assert trade.gross_pct == pytest.approx(side * change, abs=1e-9)
        assert trade.net_pct == trade.gross_pct - trade.fees_pct - trade.funding_pct
        equity *= max(0.0, 1 + trade.net_pct / 100)
    assert run.final_equity == pytest.approx(equity, rel=1e-12)
    assert (run.equity >= 0).all()
    assert run.equity[0] == 1


@given(markets, any_rules)
def test_positions_never_overlap_and_begin_where_a_decision_did(
    market: Market, rules: TradingRules
) -> None:
    wished = dict(zip(market.time_ms.tolist(), market.sides.tolist(), strict=True))
    before = START_MS
    for trade in simulate(*market, rules=rules).trades:
        assert before <= trade.entry_ms < trade.exit_ms
        assert wished[trade.entry_ms] == (1 if trade.side == "LONG" else -1)
        limit = rules.longest_hold_ms
        assert trade.exit_reason != "time" or trade.exit_ms - trade.entry_ms >= (limit or 0)
        before = trade.exit_ms


@given(markets, st.sampled_from(["reverse", "close", "ignore"]), st.booleans())
def test_all_sides_flipped_flip_gross_and_funding_and_keep_fees(
    market: Market, opposite: Any, timed: bool
) -> None:
    rules = TradingRules(
        stop_pct=None,
        target_pct=None,
        longest_hold_ms=HOUR_MS if timed else None,
        opposite=opposite,
    )
    one, other = (simulate(*market._replace(sides=s * market.sides), rules=rules) for s in (1, -1))
    # A short has a last stop, at twice its price, that a long has not.
    if any(trade.exit_reason == "stop" for trade in one.trades + other.trades):
        return
    for trade, flipped in zip(one.trades, other.trades, strict=True):
        assert trade.side != flipped.side
        assert (trade.entry_ms, trade.exit_ms) == (flipped.entry_ms, flipped.exit_ms)
        assert flipped.gross_pct == -trade.gross_pct
        assert flipped.funding_pct == -trade.funding_pct
        assert flipped.fees_pct == trade.fees_pct


@given(markets, any_rules, st.integers(1, 239))
def test_equity_at_a_time_does_not_depend_on_what_comes_after(
    market: Market, rules: TradingRules, slot: int
) -> None:
    known = market.candles.between(None, START_MS + slot * M5.ms + 1)
    first = int(np.searchsorted(market.time_ms, known.open_time_ms[-1], side="right"))
    cut = market._replace(candles=known, time_ms=market.time_ms[:first], sides=market.sides[:first])
    early, whole = simulate(*cut, rules=rules), simulate(*market, rules=rules)
    assert early.equity.tolist() == whole.equity[:first].tolist()


@given(markets)
def test_higher_costs_never_earn_more(market: Market) -> None:
    cheap, dear = (simulate(*market, Costs(taker_fee_bps=fee)) for fee in (0.0, 10.0))
    assert len(cheap.trades) == len(dear.trades)
    assert all(a.net_pct > b.net_pct for a, b in zip(cheap.trades, dear.trades, strict=True))
    assert dear.final_equity <= cheap.final_equity


@given(markets)
def test_always_long_without_costs_and_limits_is_the_asset(market: Market) -> None:
    long = market._replace(sides=np.ones_like(market.sides), funding=EMPTY_FUNDING)
    run = simulate(*long, FREE, BUY_AND_HOLD)
    candles = market.candles
    assert run.final_equity == pytest.approx(candles.close[-1] / candles.open[0])


# --- What decisions themselves cost


def billed(
    candles: dict[int, Prices], wishes: dict[int, int], bills: dict[int, float], costs: Costs = FREE
) -> Simulation:
    times = np.array([at(slot) for slot in wishes], np.int64)
    sides = np.array(list(wishes.values()), np.int8)
    amounts = np.array([bills.get(slot, 0.0) for slot in wishes])
    return simulate(quarters(candles), EMPTY_FUNDING, times, sides, costs, BUY_AND_HOLD, amounts)


def test_bills_worked_by_hand() -> None:
    """A tenth is paid before a long at 102, and a twentieth while it is open, to 110."""
    run = billed(RISE, {0: 0, 1: 1, 2: 0, 3: 0}, {0: 0.06, 1: 0.04, 2: 0.05})
    assert len(run.trades) == 1
    stake = 1 - 0.06 - 0.04
    # Samples are before the bill of their own time.
    expected = [1, 1 - 0.06, stake * 105 / 102, stake * 110 / 102 - 0.05]
    assert run.equity == pytest.approx(expected)
    assert run.final_equity == pytest.approx(stake * 110 / 102 - 0.05)


def test_bills_are_paid_by_who_never_trades_and_end_trading_when_nothing_is_left() -> None:
    idle = billed(RISE, {0: 0, 1: 0, 2: 0}, {0: 0.2, 2: 0.3})
    assert idle.equity == pytest.approx([1, 0.8, 0.8])
    assert idle.final_equity == pytest.approx(0.5)
    ruined = billed(RISE, {0: 0, 1: 1, 2: 0, 3: 0}, {0: 0.7, 1: 0.6})
    assert (ruined.trades, ruined.final_equity) == ([], 0)
    assert ruined.equity == pytest.approx([1, 0.3, 0, 0])


@given(st.integers(0, 2**32))
def test_bills_of_nothing_change_nothing_and_others_only_cost(seed: int) -> None:
    rng = np.random.default_rng(seed)
    prices = np.exp(np.cumsum(0.02 * rng.standard_normal(60)))
    candles = {slot: flat(float(price)) for slot, price in enumerate(prices)}
    wishes = {slot: int(side) for slot, side in enumerate(rng.integers(-1, 2, 60))}
    costs = Costs()
    plain = billed(candles, wishes, {}, costs)
    dear = billed(candles, wishes, dict.fromkeys(range(60), 0.0005), costs)
    without = decide(candles, wishes, costs=costs)
    assert plain.final_equity == without.final_equity
    assert plain.equity.tolist() == without.equity.tolist()
    assert dear.final_equity < plain.final_equity
    assert (dear.equity <= plain.equity).all()
    assert dear.trades == plain.trades


def test_single_results_are_those_of_decisions_traded_one_by_one() -> None:
    rng = np.random.default_rng(7)
    prices = 100 * np.exp(np.cumsum(0.004 * rng.standard_normal(80)))
    candles = quarters({slot: flat(float(p)) for slot, p in enumerate(prices) if slot != 40})
    times = np.array([at(slot) for slot in range(0, 70, 5)], np.int64)
    sides = np.array([1, -1, 0, 1, -1, 1, 1, -1, 1, -1, 1, -1, 0, 1], np.int8)
    rules, paid = TradingRules(longest_hold_ms=2 * HOUR_MS), funding((at(12), 0.001))
    results = single_results(candles, paid, times, sides, Costs(), rules)
    for time, side, result in zip(times, sides, results, strict=True):
        alone = simulate(candles, paid, np.array([time]), np.array([side], np.int8), Costs(), rules)
        assert result == pytest.approx(sum(trade.net_pct for trade in alone.trades))
    # A HOLD is worth nothing, and so is a decision in a gap.
    assert results[2] == results[8] == 0
    assert np.count_nonzero(results) == 11
