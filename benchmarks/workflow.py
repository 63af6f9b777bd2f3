"""From `snapshot.post` to the order, 50 symbols at one instant:
`python -m benchmarks --only workflow`.

The intake, the durable engine on SQLite, guards and paper broker are real. A model answers LONG at
once. The query server's answer was fetched before, so queries are not part of the figures. The
posting client runs in the same process, and its CPU is included.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from benchmarks.processes import one_result, rag_server, request_line
from benchmarks.timing import Figure
from benchmarks.workload import SYMBOLS, states
from llm_trader.app.job import Job
from llm_trader.app.llm_deciders import DeciderChoice, new_recorder, open_record
from llm_trader.app.workflow.paper_prices import PaperPrices
from llm_trader.app.workflow.parts import open_parts
from llm_trader.client import AsyncClient
from llm_trader.client.answers import answer_of_result
from llm_trader.client.calls import other
from llm_trader.clock import WallClock
from llm_trader.delivery.jobs import SnapshotPost
from llm_trader.llm.aggregator import Aggregator
from llm_trader.llm.decision import Case, Decision
from llm_trader.logs import configure_logging
from llm_trader.retrieval.answer import Answer
from llm_trader.rpc.dispatcher import Dispatcher
from llm_trader.rpc.errors import PROTOCOL_ERRORS
from llm_trader.rpc.server import RpcServer
from llm_trader.serving.wire import QueryPatternsResult
from llm_trader.settings.loading import load_settings
from llm_trader.snapshot.model import MarketSnapshot
from llm_trader.timeframe import M5
from llm_trader.workflow.engine.protocol import RunOptions
from llm_trader.workflow.graph.loading import load_graph
from llm_trader.workflow.intake import IntakeMethods
from llm_trader.workflow.nodes.deciding import AggregatorDecides
from llm_trader.workflow.nodes.scripts import SCRIPTS
from llm_trader.workflow.paper.broker import PaperBroker

if TYPE_CHECKING:
    from llm_trader.workflow.engine.durable.run_log import RunLog

_SYMBOLS, _BURSTS, _IDLE_S = 50, 5, 5.0
_MOST_MS, _INTERVAL_S = 300.0, 900.0
_GRAPH = Path(__file__).parent.parent / "workflows/llm-trader/main.yml"


class _Long(Aggregator):
    async def decide(self, case: Case) -> Decision:
        return Decision(
            "LONG", 0.8, "as the benchmark says", stop_pct=-2.0, target_pct=3.0, size_pct=1.0
        )


def workflow(folder: Path) -> list[Figure]:
    rng = np.random.default_rng(0)
    tables = [states(symbol, 60) for symbol in SYMBOLS]
    with rag_server(folder) as (_, port):
        result = one_result(port, request_line(tables, 0, row=-1, rng=rng))
    decoded = msgspec.json.decode(result, type=QueryPatternsResult)
    answer = answer_of_result(decoded)
    newest = tables[0].snapshot(-1)
    with (folder / "workflow.jsonl").open("w") as log:
        configure_logging(stream=log)  # as a server logs whose lines go to a file
        figures = asyncio.run(_measured(folder / "workflow", newest, answer))
    configure_logging("warn")
    return figures


async def _measured(folder: Path, snapshot: MarketSnapshot, answer: Answer) -> list[Figure]:
    from llm_trader.workflow.engine.durable.database import run_database
    from llm_trader.workflow.engine.durable.engine import durable_engine

    async def retrieve(inputs: Any, rpc: Any, query: Mapping[str, Any]) -> Answer:
        return answer

    ended: dict[str, float] = {}

    def watch(run: str, node: str, what: str) -> None:
        if (node, what) == ("execute", "ends"):
            ended[run] = time.perf_counter()

    job = Job(load_settings(environ={}, overrides=_overrides(folder)), {}, _now_ms())
    config = job.settings.workflow.runs
    wall = WallClock(_now_ms)
    with open_record(job) as record:
        recorder = new_recorder(job, record, "benchmark", _now_ms)
        async with open_parts(job, DeciderChoice("aggregator"), _now_ms) as parts:
            decide = AggregatorDecides(recorder, M5, wall, _Long())
            services = dataclasses.replace(parts.services, decide=decide, retrieve=retrieve)
            database = run_database(config, {})
            async with durable_engine(database, config, services, watch=watch) as runs:
                broker = parts.broker
                assert isinstance(broker, PaperBroker)
                intake = IntakeMethods(
                    engine=runs,
                    graph=load_graph(_GRAPH, SCRIPTS),
                    options=RunOptions(),
                    clock=wall,
                    max_queued=1000,
                    seen=PaperPrices(broker, None, wall).seen,
                )
                dispatcher = Dispatcher(list(intake.methods()), errors=PROTOCOL_ERRORS)
                server = RpcServer(dispatcher, job.settings.intake)
                await server.start()
                try:
                    figures = await _bursts(server.address[1], runs, snapshot, ended)
                finally:
                    await server.stop()
                if broker.check_books().orders != (1 + _BURSTS) * _SYMBOLS:
                    raise RuntimeError("not every snapshot became an order")
                return figures


async def _bursts(
    port: int, runs: RunLog, snapshot: MarketSnapshot, ended: dict[str, float]
) -> list[Figure]:
    medians, tails, cpu = [], [], []
    await _burst(port, runs, snapshot, ended, 0)  # warms up
    for number in range(1, _BURSTS + 1):
        used = time.process_time()
        delays_ms = await _burst(port, runs, snapshot, ended, number)
        cpu.append(time.process_time() - used)
        medians.append(median(delays_ms))
        tails.append(float(np.percentile(delays_ms, 95)))
    used = time.process_time()
    await asyncio.sleep(_IDLE_S)
    idle = (time.process_time() - used) / _IDLE_S
    share = median(cpu) / _INTERVAL_S + idle
    half, tail = median(medians), median(tails)
    what = f"from snapshot.post to the order, {_SYMBOLS} at one instant, ms"
    return [
        Figure(f"{what}: median", f"{half:.0f}", f"{_MOST_MS:.0f}", half < _MOST_MS),
        Figure(f"{what}: 95th percentile", f"{tail:.0f}", f"{_MOST_MS:.0f}", tail < _MOST_MS),
        Figure(
            f"CPU of one core, {_SYMBOLS} snapshots per 15 minutes",
            f"{share:.1%} ({median(cpu) / _SYMBOLS * 1000:.1f} ms a run, idle {idle:.1%})",
            "20%",
            share < 0.2,
        ),
    ]


async def _burst(
    port: int, runs: RunLog, snapshot: MarketSnapshot, ended: dict[str, float], number: int
) -> list[float]:
    """Milliseconds from the sending of each snapshot to the end of its order."""
    now_ms = _now_ms()
    async with AsyncClient(f"tcp://127.0.0.1:{port}", timeout_s=30.0) as client:

        async def post(symbol: str) -> tuple[str, float]:
            state = msgspec.structs.replace(snapshot, symbol=symbol, timestamp=now_ms)
            job = SnapshotPost(
                job_id=symbol,
                snapshot_id=f"{symbol} {number}",
                deadline_ms=now_ms + 240_000,
                snapshot=state,
            )
            params = msgspec.to_builtins(job)
            sent = time.perf_counter()
            receipt = await client.send(other("snapshot.post", params))
            return receipt["run_id"], sent

        # Each burst has symbols of its own, so that each run opens a position.
        names = [f"B{number}S{i}USDT" for i in range(_SYMBOLS)]
        posted = await asyncio.gather(*map(post, names))
    async with asyncio.timeout(30):
        while not all(run in ended for run, _ in posted):  # noqa: ASYNC110  other threads end them
            await asyncio.sleep(0.01)
    while await runs.unended():  # noqa: ASYNC110  the library takes them into its record
        await asyncio.sleep(0.1)
    return [(ended[run] - sent) * 1000 for run, sent in posted]


def _overrides(folder: Path) -> dict[str, Any]:
    return {
        "decisions.record": folder / "decisions",
        "workflow.runs.folder": folder / "runs",
        "workflow.paper.ledger": folder / "paper.sqlite",
        "workflow.guards.kill_switch": folder / "kill",
        "workflow.guards.min_reward_risk": 0,
        "workflow.guards.max_trades_per_day": 100_000,
        "workflow.guards.max_exposure_pct": 10_000,
        "workflow.guards.max_leverage": 100,
        "intake.port": 0,
        "snapshot.intraday": "5m",
    }


def _now_ms() -> int:
    return int(time.time() * 1000)
