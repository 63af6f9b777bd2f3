"""A backtest of the workflow trades as the evaluation does on the same decisions.

Both take stops, targets and longest holds from `trading/exits.py`; everything else is their own:
floats and one stake here, Decimals, margin and double-entry books there. With steps of 1e-8 their
results differ by rounding alone.
"""

from __future__ import annotations

import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from llm_trader.app.indexes import snapshot_rules
from llm_trader.app.job import Job
from llm_trader.app.server import query_server
from llm_trader.app.workflow.backtest import backtest, stored_evidence
from llm_trader.app.workflow.backtest_report import Backtested
from llm_trader.client import AsyncClient
from llm_trader.embedding.state import StateSpace
from llm_trader.errors import InvalidInputError, LlmTraderError, SymbolNotFoundError
from llm_trader.evaluation.backtest.simulator import Simulation, sides_of, simulate
from llm_trader.index.ingestion import Spaces
from llm_trader.llm.aggregator import Aggregator, AggregatorConfig
from llm_trader.llm.cases import states_at
from llm_trader.market.store import MarketStore
from llm_trader.retrieval.answer import Answer
from llm_trader.settings.loading import load_settings
from llm_trader.timeframe import DAY_MS, H4, HOUR_MS, M5, MAX_TIME_MS, Millis
from llm_trader.trading.rules import Costs, TradingRules
from llm_trader.workflow.graph.document import ToolNode
from llm_trader.workflow.graph.loading import load_graph
from llm_trader.workflow.nodes.retrieving import RpcRetrieve
from llm_trader.workflow.nodes.running import Retrieve
from llm_trader.workflow.nodes.scripts import SCRIPTS
from llm_trader.workflow.values import QueryInputs
from tests.cli.corridor import AT_MS, QUARTER_MS, Corridor
from tests.exchange.real_data import real_listings
from tests.workflow.graphs import MAIN

SYMBOL = "BTCUSDT"
JANUARY_2023_MS: Millis = 1_672_531_200_000
MARCH_2023_MS: Millis = 1_678_406_400_000  # the fall of a bank, and the rise after it
# The shipped thresholds trade some ten times a year; these do it some times a day.
EAGER = Aggregator(AggregatorConfig(least_mean_bp=5, least_similarity=None))


@pytest.fixture(scope="module")
def year(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the real candles, funding and open interest of 2023."""
    folder = tmp_path_factory.mktemp("year")
    [listing] = real_listings(real_data / "binance_5m_2023", [SYMBOL])
    with MarketStore.open(folder, write=True, exchange="binance") as store:
        for timeframe in (M5, H4):
            candles = listing.candles[timeframe]
            store.write(SYMBOL, candles, "binance", written_at_ms=MAX_TIME_MS)
        store.write(SYMBOL, listing.funding, "binance", written_at_ms=MAX_TIME_MS)
        store.write(
            SYMBOL,
            listing.open_interest,
            "binance",
            written_at_ms=MAX_TIME_MS,
            interval_ms=HOUR_MS,
        )
    return folder


def run(store: Path, start_ms: Millis, end_ms: Millis, opposite: str = "reverse") -> Backtested:
    """With the whole equity in each position, as the evaluation has it."""
    overrides: dict[str, Any] = {
        "market.store": store,
        "workflow.execution.size_pct": 100,
        "workflow.execution.opposite": opposite,
        "workflow.guards.max_daily_loss_pct": 100,
        "workflow.paper.deposit": 1_000_000,
    }
    job = Job(load_settings(environ={}, overrides=overrides), {}, MAX_TIME_MS)
    return backtest(job, MAIN, SYMBOL, start_ms, end_ms, EAGER)


def simulated(
    store: Path, done: Backtested, start_ms: Millis, end_ms: Millis, opposite: Any = "reverse"
) -> Simulation:
    with MarketStore.open(store) as opened:
        history = opened.stored_history(SYMBOL, M5, start_ms, end_ms).decode()
    candles = history.intraday.between(start_ms, end_ms)
    times = np.array(done.replayed.time_ms, np.int64)
    sides = sides_of(done.replayed.decisions)
    rules = TradingRules(opposite=opposite)
    return simulate(candles, history.funding, times, sides, Costs(), rules)


def compare(store: Path, start_ms: Millis, end_ms: Millis, opposite: str = "reverse") -> Backtested:
    done = run(store, start_ms, end_ms, opposite)
    evaluated = simulated(store, done, start_ms, end_ms, opposite)
    names = ("entry_ms", "exit_ms", "side", "exit_reason")
    assert [[getattr(t, name) for name in names] for t in done.trades] == [
        [getattr(t, name) for name in names] for t in evaluated.trades
    ]
    for name in ("entry_price", "exit_price"):
        mine, theirs = ([getattr(t, name) for t in x.trades] for x in (done, evaluated))
        assert mine == pytest.approx(theirs, abs=2e-8)
    for name in ("gross_pct", "fees_pct", "funding_pct", "net_pct"):
        mine, theirs = ([getattr(t, name) for t in x.trades] for x in (done, evaluated))
        assert mine == pytest.approx(theirs, abs=1e-7)
    report = done.report
    assert report.equity_usd / report.deposit_usd == pytest.approx(
        evaluated.final_equity, rel=1e-9 * (1 + len(done.trades))
    )
    assert report.book_problems == []
    return done


def test_days_of_a_real_market_are_traded_as_the_evaluation_trades_them(year: Path) -> None:
    done = compare(year, MARCH_2023_MS, MARCH_2023_MS + 3 * DAY_MS)
    assert done.report.states == 3 * 96
    assert {"LONG", "SHORT"} <= {trade.side for trade in done.trades}
    assert len(done.trades) > 10
    assert sum(abs(trade.funding_pct) > 0 for trade in done.trades) > 3


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("opposite", ["reverse", "close", "ignore"])
def test_a_real_year_is_traded_as_the_evaluation_trades_it(year: Path, opposite: str) -> None:
    start_ms = JANUARY_2023_MS + 22 * DAY_MS
    done = compare(year, start_ms, JANUARY_2023_MS + 365 * DAY_MS, opposite)
    reasons = Counter(trade.exit_reason for trade in done.trades)
    assert {"stop", "target", "time"} <= reasons.keys()
    assert len(done.trades) > 500


def job_of(corridor: Corridor, **overrides: Any) -> Job:
    return Job(corridor.settings(**overrides), {}, AT_MS)


def test_a_time_after_the_data_is_refused_with_where_they_end(corridor: Corridor) -> None:
    with pytest.raises(InvalidInputError, match="its data end at 2025-03-02"):
        backtest(job_of(corridor), MAIN, SYMBOL, AT_MS + 90 * DAY_MS, AT_MS + 91 * DAY_MS)


def test_an_unknown_symbol_is_refused(corridor: Corridor) -> None:
    with pytest.raises(SymbolNotFoundError):
        backtest(job_of(corridor), MAIN, "XRPUSDT", AT_MS, AT_MS + HOUR_MS)


def test_the_kill_switch_of_today_stops_no_backtest(corridor: Corridor, tmp_path: Path) -> None:
    switch = tmp_path / "kill"
    switch.write_text("maintenance")
    job = job_of(
        corridor,
        workflow__guards__kill_switch=switch,
        workflow__guards__min_reward_risk=0,
    )
    eager = replace(EAGER, config=AggregatorConfig(least_mean_bp=0, least_similarity=None))
    done = backtest(job, MAIN, SYMBOL, AT_MS - DAY_MS, AT_MS, eager)
    assert "kill_switch" not in done.report.vetoes
    assert done.report.orders["placed"] > 0
    assert done.replayed.time_ms == list(range(AT_MS - DAY_MS, AT_MS, QUARTER_MS))


def test_ctrl_c_ends_a_backtest_before_its_next_states(corridor: Corridor) -> None:
    decided = []

    def progress(label: str, done: int, total: int) -> None:
        if label == f"{SYMBOL}, deciding":
            decided.append(done)
            signal.raise_signal(signal.SIGINT)

    job = job_of(corridor)._replace(progress=progress)
    # A test before may have left another handler in this process.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            backtest(job, MAIN, SYMBOL, AT_MS - 3 * DAY_MS, AT_MS, EAGER)
    finally:
        signal.signal(signal.SIGINT, before)
    assert decided == [96]


async def test_evidence_is_what_a_server_answers_to_the_same_states(corridor: Corridor) -> None:
    job, graph = job_of(corridor), load_graph(MAIN, SCRIPTS)
    spaces = Spaces(StateSpace(M5), rules=snapshot_rules(job.settings))
    times = np.arange(AT_MS - DAY_MS // 2, AT_MS, QUARTER_MS, dtype=np.int64)
    with MarketStore.open(corridor.store) as store:
        start_ms = int(times[0])
        evidence = stored_evidence(job, store, spaces, graph, SYMBOL, start_ms, AT_MS)
        states = [(t.snapshot(0), t) for t in states_at(store, SYMBOL, M5, times, spaces.rules)]
        await evidence.prepare(states, graph)
        inputs = [
            QueryInputs(symbol=SYMBOL, timestamp=one.timestamp, current_state=one)
            for one, _ in states
        ]
        [tool] = [n.document for n in graph.nodes if isinstance(n.document, ToolNode)]
        in_blocks = [await asked(evidence, one, tool) for one in inputs]
    async with query_server(job.settings, {}, None) as server:
        await server.start()
        host, port = server.address
        retrieve = RpcRetrieve(lambda url, timeout_s: AsyncClient(url), f"tcp://{host}:{port}")
        served = [await asked(retrieve, one, tool) for one in inputs]
        await retrieve.aclose()
        await server.stop()
    assert len(in_blocks) == len(served) == 48
    for mine, theirs in zip(in_blocks, served, strict=True):
        # Means of a block are sums in another order.
        (floats, others), (their_floats, their_others) = apart(mine), apart(theirs)
        assert others == their_others
        assert floats == pytest.approx(their_floats, rel=1e-9, abs=1e-12)
    assert sum(isinstance(one, Answer) for one in served) > 42


async def asked(retrieve: Retrieve, inputs: QueryInputs, tool: ToolNode) -> Answer | str:
    """The answer without its durations, and without what does not go over the wire; or a code."""
    try:
        answer = await retrieve(inputs, tool.config.rpc, tool.config.query)
    except LlmTraderError as error:
        return error.code
    return msgspec.structs.replace(answer, embedding_us=0, retrieval_us=0, without_neighbours=None)


def apart(answer: Answer | str) -> tuple[dict[str, float], dict[str, Any]]:
    """Its fractions, and all else."""
    found = leaves(msgspec.to_builtins(answer))
    floats = {path: value for path, value in found.items() if isinstance(value, float)}
    return floats, {path: value for path, value in found.items() if path not in floats}


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """The numbers and texts of an answer by their places in it."""
    if not isinstance(value, dict | list | tuple):
        return {path: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    inner = {f"{path}.{key}": item for key, item in items}
    return {path: len(value)} | {
        p: v for at, item in inner.items() for p, v in leaves(item, at).items()
    }
