"""What a backtest came to, in the words and units of an evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec
import numpy as np

from llm_trader.arrays import Times
from llm_trader.evaluation.backtest.performance import measure
from llm_trader.evaluation.backtest.simulator import Simulation, Trade
from llm_trader.evaluation.results import Performance
from llm_trader.timeframe import Millis, iso8601
from llm_trader.trading.exits import ExitReason
from llm_trader.workflow.backtest.replay import Replay, Replayed
from llm_trader.workflow.config import WorkflowConfig
from llm_trader.workflow.orders import FillReason
from llm_trader.workflow.paper.trades import PaperTrade


class BacktestTrade(msgspec.Struct, frozen=True, kw_only=True):
    """A trade with its results in % of its entry notional, as the evaluation gives them."""

    side: str
    entry: str
    exit: str
    entry_price: float
    exit_price: float
    exit_reason: str
    gross_pct: float
    fees_pct: float
    funding_pct: float
    net_pct: float
    net_usd: float


class BacktestReport(msgspec.Struct, frozen=True, kw_only=True):
    """`actions` are decisions after the guards; a HOLD is counted by who wanted it.

    `node_errors` are those of nodes, also where the graph went on; `failures` ended a run.
    """

    graph: str
    digest: str
    symbol: str
    start: str
    end: str
    states: int
    states_missing: int
    actions: dict[str, int]
    vetoes: dict[str, int]
    orders: dict[str, int]
    node_errors: dict[str, int]
    failures: dict[str, int]
    deposit_usd: float
    equity_usd: float
    costs_usd: float
    funding_usd: float
    performance: Performance
    book_problems: list[str]
    trades: list[BacktestTrade]


class Backtested(msgspec.Struct, frozen=True):
    """A report, and what it was made of."""

    report: BacktestReport
    replayed: Replayed
    trades: list[Trade]


def report_of(
    replay: Replay,
    config: WorkflowConfig,
    symbol: str,
    times: Times,
    end_ms: Millis,
    equity: float,
) -> Backtested:
    done, deposit = replay.replayed, config.paper.deposit
    paper = replay.broker.trades()
    trades = [_trade(one, end_ms) for one in paper]
    simulation = Simulation(
        trades,
        np.array(done.time_ms, np.int64),
        np.array([float(one) / deposit for one in done.equity]),
        end_ms,
        equity / deposit,
    )
    report = BacktestReport(
        graph=replay.graph.name,
        digest=replay.graph.digest,
        symbol=symbol,
        start=iso8601(int(times[0])),
        end=iso8601(end_ms),
        states=len(done.time_ms),
        states_missing=len(times) - len(done.time_ms),
        actions=dict(Counter(_actions(done))),
        vetoes=dict(done.vetoes),
        orders=dict(done.orders),
        node_errors=dict(done.node_errors),
        failures=dict(done.failures),
        deposit_usd=deposit,
        equity_usd=equity,
        costs_usd=float(sum(one.costs for one in paper)),
        funding_usd=float(sum(one.funding for one in paper)),
        performance=measure(simulation, trials=1),
        book_problems=list(replay.broker.check_books().problems),
        trades=[_shown(*pair) for pair in zip(trades, paper, strict=True)],
    )
    return Backtested(report, done, trades)


def _actions(done: Replayed) -> Iterator[str]:
    for decision in done.decisions:
        reason = decision.hold_reason
        yield decision.action if reason is None else f"HOLD by {reason}"


def _trade(one: PaperTrade, end_ms: Millis) -> Trade:
    """In % of its entry notional, as the evaluation's simulator has it."""
    notional = one.quantity * one.entry_price / 100
    reasons: dict[FillReason, ExitReason] = {
        "order": "end" if one.exit_ms == end_ms else "signal",
        "liquidation": "stop",
        "stop": "stop",
        "target": "target",
        "time": "time",
    }
    return Trade(
        one.entry_ms,
        one.exit_ms,
        one.side,
        float(one.entry_price),
        float(one.exit_price),
        reasons[one.exit_reason],
        float(one.gross / notional),
        float(one.costs / notional),
        float(one.funding / notional),
        float(one.net / notional),
    )


def _shown(trade: Trade, paper: PaperTrade) -> BacktestTrade:
    liquidated = paper.exit_reason == "liquidation"
    return BacktestTrade(
        side=trade.side,
        entry=iso8601(trade.entry_ms),
        exit=iso8601(trade.exit_ms),
        entry_price=trade.entry_price,
        exit_price=trade.exit_price,
        exit_reason="liquidation" if liquidated else trade.exit_reason,
        gross_pct=trade.gross_pct,
        fees_pct=trade.fees_pct,
        funding_pct=trade.funding_pct,
        net_pct=trade.net_pct,
        net_usd=float(paper.net),
    )
