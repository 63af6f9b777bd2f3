"""A graph over past states of the store: what the workflow would have traded on paper."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from llm_trader.app.indexes import collection_of, loaded_calibration, snapshot_rules
from llm_trader.app.ingestion import intraday_timeframe
from llm_trader.app.job import Job, blocking
from llm_trader.app.llm_deciders import DeciderChoice, prompt_options
from llm_trader.arrays import Times
from llm_trader.delivery.jobs import snapshot_id
from llm_trader.embedding.state import StateSpace
from llm_trader.errors import InvalidInputError, SymbolNotFoundError
from llm_trader.evaluation.backtest.performance import measure
from llm_trader.evaluation.backtest.simulator import Simulation, Trade
from llm_trader.evaluation.dataset import read_dataset
from llm_trader.evaluation.results import Performance
from llm_trader.index.ingestion import Spaces
from llm_trader.index.memory_index import MemoryIndex
from llm_trader.llm.aggregator import Aggregator
from llm_trader.llm.cases import states_at
from llm_trader.market.store import MarketStore
from llm_trader.progress import StepCounter, labelled
from llm_trader.retrieval.retriever import Retriever
from llm_trader.snapshot.model import MarketSnapshot
from llm_trader.timeframe import DAY_MS, Millis, iso8601
from llm_trader.trading.exits import ExitReason
from llm_trader.workflow.backtest.clock import BacktestClock
from llm_trader.workflow.backtest.evidence import StoredEvidence, searches_of
from llm_trader.workflow.backtest.replay import Replay, Replayed
from llm_trader.workflow.config import WorkflowConfig
from llm_trader.workflow.engine.protocol import RunOptions
from llm_trader.workflow.graph.document import InputNode
from llm_trader.workflow.graph.loading import load_graph
from llm_trader.workflow.graph.model import Graph
from llm_trader.workflow.instrument_file import instruments_of
from llm_trader.workflow.nodes.deciding import AggregatorDecides
from llm_trader.workflow.nodes.running import Services
from llm_trader.workflow.nodes.scripts import SCRIPTS
from llm_trader.workflow.nodes.trading import BrokerExecutes, BrokerGuard
from llm_trader.workflow.orders import FillReason
from llm_trader.workflow.paper.broker import PaperBroker
from llm_trader.workflow.paper.feed import MarketFeed
from llm_trader.workflow.paper.ledger import Ledger
from llm_trader.workflow.paper.trades import PaperTrade
from llm_trader.workflow.values import Received

# As many as an evaluation asks about together; more share hardly more.
_TOGETHER: Final = 96


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


@blocking
async def backtest(
    job: Job,
    path: Path,
    symbol: str,
    start_ms: Millis,
    end_ms: Millis,
    aggregator: Aggregator | None = None,
) -> Backtested:
    """The states from `start_ms` up to, and without, `end_ms`, by the settings of the workflow.

    Raises `InvalidInputError` for a graph that takes no snapshots, and for a time without states.
    """
    graph = load_graph(path, SCRIPTS)
    _refuse_unfit(graph)
    with (
        MarketStore.open(job.settings.market.store) as store,
        tempfile.TemporaryDirectory() as folder,
    ):
        if symbol not in (available := store.symbols()):
            raise SymbolNotFoundError(symbol, available)
        intraday = intraday_timeframe(job.settings, store, [symbol])
        stored = store.first_and_last_ms(symbol, intraday)
        end_ms = end_ms if stored is None else min(end_ms, stored[1] + intraday.ms)
        interval_ms = job.settings.snapshot.interval_ms
        times = np.arange(start_ms + -start_ms % interval_ms, end_ms, interval_ms, dtype=np.int64)
        if not len(times):
            raise InvalidInputError(
                f"the store has no state of {symbol} from {iso8601(start_ms)} on: its data end at "
                f"{iso8601(end_ms)}; give an earlier --start, or import more"
            )
        # Today's kill switch says nothing about the past.
        config = job.settings.workflow
        guards = msgspec.structs.replace(config.guards, kill_switch=Path(folder) / "kill-switch")
        config = msgspec.structs.replace(config, guards=guards)
        spaces = Spaces(StateSpace(intraday), rules=snapshot_rules(job.settings))
        evidence = _evidence(job, store, spaces, graph, symbol, int(times[0]), end_ms)
        clock = BacktestClock(int(times[0]))
        decide = AggregatorDecides(None, intraday, clock, aggregator or Aggregator())
        replay = _replay(job, store, graph, config, evidence, decide, clock, symbol, end_ms)
        count = StepCounter(job.progress, f"{symbol}, deciding", len(times))
        states = states_at(store, symbol, intraday, times, spaces.rules)
        feature_version = spaces.state.feature_version
        while part := list(islice(states, _TOGETHER)):
            usable = [(table.snapshot(0), table) for table in part if table.usable()[0]]
            await evidence.prepare(usable, graph)
            for snapshot, _ in usable:
                await replay.run(_received(snapshot, store.exchange, feature_version))
            count(len(part))
        if not replay.replayed.time_ms:
            raise InvalidInputError(
                f"no state of {symbol} from {iso8601(int(times[0]))} to {iso8601(end_ms)} is "
                "usable; see: llm-trader data info"
            )
        equity = await replay.close(symbol, end_ms)
        return _backtested(replay, config, symbol, times, end_ms, float(equity))


def _refuse_unfit(graph: Graph) -> None:
    inputs = [n.document for n in graph.nodes if isinstance(n.document, InputNode)]
    if not any(node.config.method == "snapshot.post" for node in inputs):
        raise InvalidInputError(
            f"the graph {graph.name} takes no snapshots, so there is nothing to backtest; add a "
            "node of the type input with the method snapshot.post"
        )


def _evidence(
    job: Job,
    store: MarketStore,
    spaces: Spaces,
    graph: Graph,
    symbol: str,
    start_ms: Millis,
    end_ms: Millis,
) -> StoredEvidence:
    """From points that are made in memory, as an evaluation makes them."""
    settings = job.settings
    defaults, collection = settings.retrieval.search(), collection_of(spaces, store.exchange)
    retriever = Retriever(MemoryIndex(collection, {}), spaces.state)
    evidence = StoredEvidence(retriever, defaults, settings.serving.min_matches)
    searches = searches_of(graph, evidence)
    if others := {search.vector for search in searches} - {"state"}:
        raise InvalidInputError(
            f"the graph searches by {' and '.join(sorted(others))}, and a backtest makes state "
            'vectors only; set vector: state in the query of the node, or test it with "evaluate"'
        )
    days = max((search.lookback_days for search in searches), default=0)
    dataset = read_dataset(
        store,
        spaces,
        [symbol],
        start_ms - DAY_MS,  # of the last day no outcomes are known
        end_ms,
        lookback_days=days,
        interval_ms=settings.snapshot.interval_ms,
        now_ms=job.now_ms,
        progress=labelled(job.progress, "reading"),
    )
    index = MemoryIndex(collection, dataset.points)
    evidence.retriever = Retriever(index, spaces.state, calibration=loaded_calibration(settings))
    return evidence


def _replay(
    job: Job,
    store: MarketStore,
    graph: Graph,
    config: WorkflowConfig,
    evidence: StoredEvidence,
    decide: AggregatorDecides,
    clock: BacktestClock,
    symbol: str,
    end_ms: Millis,
) -> Replay:
    intraday, start_ms = decide.intraday, clock.time_ms
    instruments = instruments_of(config.paper.instruments)
    broker = PaperBroker(
        Ledger(None, durable=False), config.paper, instruments, now_ms=start_ms, keeps_marks=False
    )
    history = store.stored_history(symbol, intraday, start_ms, end_ms).decode()
    candles = history.intraday.between(start_ms, end_ms)
    services = Services(
        clock=clock,
        retrieve=evidence,
        scripts=SCRIPTS,
        decide=decide,
        guard=BrokerGuard(broker, config, clock),
        execute=BrokerExecutes(broker, config, clock),
        prompt=prompt_options(job.settings.decisions, DeciderChoice()),
        counts_fallbacks=True,
    )
    feed = MarketFeed(symbol, candles, history.funding)
    return Replay(graph, services, clock, broker, feed, RunOptions(shadow=config.runs.shadow))


def _received(snapshot: MarketSnapshot, exchange: str | None, version: str) -> Received:
    """The state as a collector would have posted it, at its own time."""
    symbol, as_of_ms = snapshot.symbol, snapshot.timestamp
    return Received(
        symbol=symbol,
        as_of_ms=as_of_ms,
        snapshot=snapshot,
        snapshot_id=snapshot_id(symbol, as_of_ms, exchange, version),
        received_at_ms=as_of_ms,
    )


def _backtested(
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
