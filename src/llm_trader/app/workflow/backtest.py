"""A graph over past states of the store: what the workflow would have traded on paper."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from llm_trader.app.indexes import collection_of, loaded_calibration, snapshot_rules
from llm_trader.app.ingestion import intraday_timeframe
from llm_trader.app.job import Job
from llm_trader.app.llm_deciders import DeciderChoice, prompt_options
from llm_trader.app.workflow.backtest_report import Backtested, report_of
from llm_trader.arrays import Times
from llm_trader.delivery.jobs import snapshot_id
from llm_trader.embedding.state import StateSpace
from llm_trader.errors import InvalidInputError, SymbolNotFoundError
from llm_trader.evaluation.dataset import read_dataset
from llm_trader.index.ingestion import Spaces
from llm_trader.index.memory_index import MemoryIndex
from llm_trader.llm.aggregator import Aggregator
from llm_trader.llm.cases import states_at
from llm_trader.market.store import MarketStore
from llm_trader.progress import StepCounter, labelled
from llm_trader.retrieval.retriever import Retriever
from llm_trader.snapshot.model import MarketSnapshot
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, Millis, Timeframe, iso8601
from llm_trader.workflow.backtest.clock import BacktestClock
from llm_trader.workflow.backtest.evidence import StoredEvidence, searches_of
from llm_trader.workflow.backtest.replay import Replay
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
from llm_trader.workflow.paper.broker import PaperBroker
from llm_trader.workflow.paper.feed import MarketFeed
from llm_trader.workflow.paper.ledger import Ledger
from llm_trader.workflow.values import Received

# As many as an evaluation asks about together; more share hardly more.
_TOGETHER: Final = 96


def backtest(
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
        times, end_ms = _times(job, store, symbol, intraday, start_ms, end_ms)
        config = _config_of_past(job.settings.workflow, Path(folder))
        spaces = Spaces(StateSpace(intraday), rules=snapshot_rules(job.settings))
        evidence = stored_evidence(job, store, spaces, graph, symbol, int(times[0]), end_ms)
        clock = BacktestClock(int(times[0]))
        decide = AggregatorDecides(None, intraday, clock, aggregator or Aggregator())
        replay = _replay(job, store, graph, config, evidence, decide, clock, symbol, end_ms)
        count = StepCounter(job.progress, f"{symbol}, deciding", len(times))
        states = states_at(store, symbol, intraday, times, spaces.rules)
        made_by = store.exchange, spaces.state.feature_version
        equity = asyncio.run(_play(replay, evidence, states, made_by, count, end_ms))
        if not replay.replayed.time_ms:
            raise InvalidInputError(
                f"no state of {symbol} from {iso8601(int(times[0]))} to {iso8601(end_ms)} is "
                "usable; see: llm-trader data info"
            )
        return report_of(replay, config, symbol, times, end_ms, float(equity))


async def _play(
    replay: Replay,
    evidence: StoredEvidence,
    states: Iterator[SnapshotTable],
    made_by: tuple[str | None, str],
    count: StepCounter,
    end_ms: Millis,
) -> Decimal:
    """Runs the graph for each usable state; the equity at the end. `made_by` are the exchange and
    the version of the features.
    """
    while part := list(islice(states, _TOGETHER)):
        await asyncio.sleep(0)  # nothing else here waits, and Ctrl-C ends what waits
        usable = [(table.snapshot(0), table) for table in part if table.usable()[0]]
        await evidence.prepare(usable, replay.graph)
        for snapshot, _ in usable:
            await replay.run(_received(snapshot, *made_by))
        count(len(part))
    return await replay.close(end_ms)


def _times(
    job: Job,
    store: MarketStore,
    symbol: str,
    intraday: Timeframe,
    start_ms: Millis,
    end_ms: Millis,
) -> tuple[Times, Millis]:
    """The times of the grid that the store reaches, and where they end."""
    stored = store.first_and_last_ms(symbol, intraday)
    end_ms = end_ms if stored is None else min(end_ms, stored[1] + intraday.ms)
    interval_ms = job.settings.snapshot.interval_ms
    times = np.arange(start_ms + -start_ms % interval_ms, end_ms, interval_ms, dtype=np.int64)
    if not len(times):
        raise InvalidInputError(
            f"the store has no state of {symbol} from {iso8601(start_ms)} on: its data end at "
            f"{iso8601(end_ms)}; give an earlier --start, or import more"
        )
    return times, end_ms


def _config_of_past(config: WorkflowConfig, folder: Path) -> WorkflowConfig:
    """Today's kill switch says nothing about the past."""
    guards = msgspec.structs.replace(config.guards, kill_switch=folder / "kill-switch")
    return msgspec.structs.replace(config, guards=guards)


def _refuse_unfit(graph: Graph) -> None:
    inputs = [n.document for n in graph.nodes if isinstance(n.document, InputNode)]
    if not any(node.config.method == "snapshot.post" for node in inputs):
        raise InvalidInputError(
            f"the graph {graph.name} takes no snapshots, so there is nothing to backtest; add a "
            "node of the type input with the method snapshot.post"
        )


def stored_evidence(
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
