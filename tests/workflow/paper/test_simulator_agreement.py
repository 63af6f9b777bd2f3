"""Backtests on paper and the evaluation's simulator come to the same trades.

They share the rules of exits (`trading/exits.py`), and differ in arithmetic and in size: the
broker's prices are rounded to ticks, its quantities to steps, and it has margin. With steps of 1e-8
the trades are the same, and results differ by less than 1e-6 % of the notional.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.evaluation.backtest.simulator import Simulation, simulate
from llm_trader.timeframe import HOUR_MS, MINUTE_MS, Millis
from llm_trader.trading.rules import Costs, TradingRules
from llm_trader.workflow.config import ExecutionConfig, PaperConfig
from llm_trader.workflow.orders import Fill
from llm_trader.workflow.paper.broker import PaperBroker
from tests.evaluation.backtest.test_simulator import market
from tests.exchange.real_data import real_listing
from tests.workflow.builders import SYMBOL, Decided, backtest

COSTS = Costs(taker_fee_bps=5.5, slippage_bps=1.0)


class PaperTrade(NamedTuple):
    entry_ms: Millis
    exit_ms: Millis
    side: str
    reason: str
    entry_price: float
    exit_price: float


def configs(rules: TradingRules, wait_s: float) -> tuple[ExecutionConfig, PaperConfig]:
    """The settings that say the same as rules of an evaluation."""
    execution = ExecutionConfig(
        stop_pct=rules.stop_pct or 90.0,
        target_pct=rules.target_pct or 1000.0,
        size_pct=100.0,
        longest_hold_minutes=(rules.longest_hold_ms or 0) // MINUTE_MS,
        opposite=rules.opposite,
    )
    paper = PaperConfig(
        deposit=1_000_000,
        taker_fee_bps=COSTS.taker_fee_bps,
        slippage_bps=COSTS.slippage_bps,
        leverage=2,
        maintenance_margin_pct=0,
        max_fill_wait_s=wait_s,
    )
    return execution, paper


def pairs(fills: list[Fill]) -> list[PaperTrade]:
    """Entry and exit of each position; what is open at the end has no exit."""
    opened = [fill for fill in fills if fill.opens]
    closed = [fill for fill in fills if not fill.opens]
    return [
        PaperTrade(
            entry.time_ms,
            exit_.time_ms,
            "LONG" if entry.side == "BUY" else "SHORT",
            "signal" if exit_.reason == "order" else exit_.reason,
            float(entry.price),
            float(exit_.price),
        )
        for entry, exit_ in zip(opened, closed, strict=False)
    ]


async def compare(decided: Decided, rules: TradingRules) -> tuple[Simulation, PaperBroker]:
    sides = np.asarray(decided.sides, np.int8)
    times = np.asarray(decided.time_ms, np.int64)
    run = simulate(decided.candles, decided.funding, times, sides, COSTS, rules)
    execution, paper = configs(rules, decided.candles.timeframe.ms / 1000)
    broker = await backtest(decided, execution, paper)
    trades = pairs(await broker.fills(0))
    expected = [trade for trade in run.trades if trade.exit_reason != "end"]
    assert [t[:4] for t in trades] == [
        (t.entry_ms, t.exit_ms, t.side, t.exit_reason) for t in expected
    ]
    for mine, simulated in zip(trades, expected, strict=True):
        prices = (simulated.entry_price, simulated.exit_price)
        assert mine[4:] == pytest.approx(prices, abs=2e-8)
    assert await final_equity(broker) == pytest.approx(
        run.final_equity, rel=1e-8 * (1 + len(trades))
    )
    assert broker._ledger.check().problems == ()
    return run, broker


async def final_equity(broker: PaperBroker) -> float:
    """As a multiple of the deposit, after what is open was closed at the last price."""
    balance, position = await broker.balance(), await broker.position(SYMBOL)
    quote = await broker.quote(SYMBOL)
    leaving = abs(position.quantity) * quote.price * Decimal(COSTS.per_side)
    return float((balance.equity - leaving) / 1_000_000)


any_rules = st.builds(
    TradingRules,
    stop_pct=st.sampled_from([0.5, 2.0, 10.0]),
    target_pct=st.sampled_from([None, 0.5, 3.0]),
    longest_hold_ms=st.sampled_from([None, 10 * MINUTE_MS, HOUR_MS, 4 * HOUR_MS]),
    opposite=st.sampled_from(["reverse", "close", "ignore"]),
)


@given(st.integers(0, 2**32 - 1).map(market), any_rules)
async def test_simulated_markets_with_holes_are_traded_as_the_evaluation_trades_them(
    market: Any, rules: TradingRules
) -> None:
    decided = Decided(
        market.candles, market.funding, market.time_ms.tolist(), market.sides.tolist()
    )
    await compare(decided, rules)


def real(folder: Path, symbol: str, start_ms: Millis, days: int) -> Decided:
    """Real candles; decisions at quarter-hours go with the last hour's move, where it is large."""
    names = {kind: f"binance_usdm_{symbol}_{kind}.parquet" for kind in ("candles_5m", "funding_8h")}
    frames = {kind: pl.read_parquet(folder / name) for kind, name in names.items()}
    interest = f"bybit_linear_{symbol}_open_interest_1h.parquet"
    listing = real_listing(
        {**frames, "open_interest_1h": pl.read_parquet(folder / interest)}, symbol
    )
    candles = next(iter(listing.candles.values()))
    candles = candles.between(start_ms, start_ms + days * 24 * HOUR_MS)
    rows = np.arange(12, len(candles), 3)
    change = candles.close[rows - 1] / candles.open[rows - 12] - 1
    sides = np.sign(change) * (np.abs(change) > 0.002)
    times = candles.open_time_ms[rows].tolist()
    return Decided(candles, listing.funding, times, sides.astype(int).tolist())


JANUARY_2023_MS: Millis = 1_672_531_200_000
MARCH_2023_MS: Millis = 1_678_233_600_000  # the fall of a bank, and the rise after it


async def test_a_fortnight_of_real_quarter_hours_is_traded_as_the_evaluation_trades_it(
    real_data: Path,
) -> None:
    decided = real(real_data / "binance_5m_2023", "BTCUSDT", MARCH_2023_MS, 14)
    run, _ = await compare(decided, TradingRules())
    reasons = Counter(trade.exit_reason for trade in run.trades)
    assert {"stop", "target", "time", "signal"} <= reasons.keys()


@pytest.mark.soak
@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
@pytest.mark.parametrize("opposite", ["reverse", "close", "ignore"])
async def test_a_real_year_is_traded_as_the_evaluation_trades_it(
    real_data: Path, symbol: str, opposite: Any
) -> None:
    decided = real(real_data / "binance_5m_2023", symbol, JANUARY_2023_MS, 365)
    run, _ = await compare(decided, TradingRules(opposite=opposite))
    assert len(run.trades) > 1000
