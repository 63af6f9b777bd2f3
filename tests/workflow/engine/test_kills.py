"""Processes that serve a workflow are killed with SIGKILL, and started again."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llm_trader.app.llm_deciders import DeciderChoice  # noqa: F401  loaded before the forks
from llm_trader.errors import ConfigurationError, LlmTraderError
from llm_trader.llm.record.decisions import DecisionFilter
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.snapshot.model import MarketSnapshot
from llm_trader.workflow.engine.config import RunsConfig
from llm_trader.workflow.engine.durable.database import run_database
from llm_trader.workflow.nodes.scripts import SCRIPTS
from llm_trader.workflow.paper.ledger import Ledger
from tests.llm.stub.faults import Hang
from tests.llm.stub.server import StubServer
from tests.workflow.graphs import changed
from tests.workflow.processes import ServingProcess, Surroundings, post_of

if TYPE_CHECKING:
    from llm_trader.workflow.engine.durable.run_log import RunLog

REPLY = json.dumps(
    {
        "action": "LONG",
        "confidence": 0.8,
        "reasoning": "As the test says.",
        "stop_pct": -2.0,
        "target_pct": 3.0,
        "size_pct": 1.0,
    }
)
# The steps of a run without a RAG server; its input is stored when it is accepted.
NODES = ("rag", "baseline", "decide", "guard", "execute")


@pytest.fixture
def here(tmp_path: Path, stub: StubServer) -> Surroundings:
    stub.decide = lambda request: REPLY
    return Surroundings(tmp_path, stub.url)


@pytest.fixture(scope="module")
def stub() -> Iterator[StubServer]:
    with StubServer() as running:
        yield running


@pytest.fixture(autouse=True)
def forgotten(stub: StubServer) -> None:
    stub.clear()


def _now_ms() -> int:
    return int(time.time() * 1000)


def _run_log(config: RunsConfig) -> RunLog:
    from llm_trader.workflow.engine.durable.run_log import RunLog

    return RunLog(run_database(config, {}), dict(SCRIPTS))


async def _ended(here: Surroundings, runs: set[str]) -> dict[str, Any]:
    """The summaries of all runs, once these and all others have ended."""
    url = here.more.get("workflow.runs.postgres_url")
    config = RunsConfig(folder=here.folder / "runs", postgres_url=url)
    log = _run_log(config)
    try:
        for run in runs:
            async with asyncio.timeout(60):
                await log.wait(run)
        async with asyncio.timeout(60):
            while await log.depth():  # noqa: ASYNC110  another process carries them out
                await asyncio.sleep(0.05)
        return {one.run_id: one for one in await log.runs(limit=10_000)}
    finally:
        log.close()


def _opening_orders(here: Surroundings) -> Counter[str]:
    """The number of orders that open a position, by symbol."""
    with sqlite3.connect(here.folder / "paper.sqlite") as ledger:
        rows = ledger.execute("SELECT symbol, intent FROM orders").fetchall()
    return Counter(symbol for symbol, intent in rows if json.loads(intent)["kind"] == "open")


def _decisions(here: Surroundings) -> Counter[str]:
    with DecisionRecord.open(here.folder / "decisions") as record:
        return Counter(one.symbol for one in record.decisions.summaries(DecisionFilter()))


async def _killed_at(here: Surroundings, moment: str, post: Any) -> None:
    """Posts a snapshot to a process that dies at a moment of its run, perhaps before it answers."""
    with here.serving(kill_at=moment) as process:
        with suppress(LlmTraderError):
            await process.post(post)
        ended_by = await asyncio.to_thread(process.ended_by)
    assert ended_by == signal.SIGKILL, moment


async def _posted_again(process: ServingProcess, post: Any) -> str:
    """The run of a snapshot that was accepted before."""
    receipt = await process.post(post)
    assert receipt["status"] == "duplicate"
    return str(receipt["run_id"])


async def test_a_killed_run_goes_on_where_it_was(
    here: Surroundings, stub: StubServer, snapshot: MarketSnapshot
) -> None:
    """Killed after the model's reply, and again after the order, before either is recorded."""
    post = post_of(snapshot, "BTCUSDT", _now_ms())
    await _killed_at(here, "decide ends", post)
    with here.serving(kill_at="execute ends") as process:
        assert await asyncio.to_thread(process.ended_by) == signal.SIGKILL
    with here.serving() as process:
        run = await _posted_again(process, post)
        summaries = await _ended(here, {run})
    assert (summaries[run].state, summaries[run].execution) == ("done", "placed")
    assert len(stub.requests) == 1  # the reply was on record
    assert _opening_orders(here) == {"BTCUSDT": 1}
    assert _decisions(here) == {"BTCUSDT": 1}


async def test_a_process_that_is_stopped_leaves_its_runs_to_the_next_one(
    here: Surroundings, stub: StubServer, snapshot: MarketSnapshot
) -> None:
    stub.script(Hang())
    with here.serving() as process:
        run = str((await process.post(post_of(snapshot, "BTCUSDT", _now_ms())))["run_id"])
        while not stub.arrivals:  # noqa: ASYNC110  the stub runs in another thread
            await asyncio.sleep(0.02)
        process.process.terminate()
        await asyncio.to_thread(process.process.join, 60)
        assert process.process.exitcode == 0
    with here.serving():
        summaries = await _ended(here, {run})
    assert (summaries[run].state, summaries[run].action) == ("done", "LONG")
    assert _opening_orders(here) == {"BTCUSDT": 1}


async def test_a_run_in_flight_ends_on_the_graph_that_it_began_with(
    here: Surroundings, snapshot: MarketSnapshot
) -> None:
    old = _written(here, "old", ("timeout: 45000", "timeout: 44999"))
    new = _written(
        here,
        "new",
        ("name: guard\n    type: guard", "name: check\n    type: guard"),
        ("${guard.output.decision}", "${check.output.decision}"),
        ("{from: decide, to: guard}", "{from: decide, to: check}"),
        ("{from: guard, to: execute}", "{from: check, to: execute}"),
    )
    here.graph = old
    post = post_of(snapshot, "BTCUSDT", _now_ms())
    await _killed_at(here, "guard begins", post)
    here.graph = new
    with here.serving() as process:
        first = await _posted_again(process, post)
        receipt = await process.post(post_of(snapshot, "ETHUSDT", _now_ms()))
        second = str(receipt["run_id"])
        summaries = await _ended(here, {first, second})
        log = _run_log(RunsConfig(folder=here.folder / "runs"))
        nodes = {run: [r.node for r in (await log.show(run)).records] for run in (first, second)}
        log.close()
    assert {one.state for one in summaries.values()} == {"done"}
    assert nodes[first][-2:] == ["guard", "execute"]
    assert nodes[second][-2:] == ["check", "execute"]
    assert summaries[first].graph_digest != summaries[second].graph_digest


@pytest.mark.soak
@pytest.mark.parametrize("what", ["begins", "ends"])
@pytest.mark.parametrize("node", NODES)
async def test_a_run_killed_at_any_boundary_is_decided_once(
    here: Surroundings, stub: StubServer, snapshot: MarketSnapshot, node: str, what: str
) -> None:
    post = post_of(snapshot, "BTCUSDT", _now_ms())
    await _killed_at(here, f"{node} {what}", post)
    with here.serving() as process:
        run = await _posted_again(process, post)
        summaries = await _ended(here, {run})
    assert (summaries[run].state, summaries[run].execution) == ("done", "placed")
    assert len(stub.requests) == 1
    assert _opening_orders(here) == {"BTCUSDT": 1}
    assert _decisions(here) == {"BTCUSDT": 1}


# 200 kills in all, in parts that run side by side.
@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(8))
async def test_kills_at_25_random_instants_lose_and_double_nothing(
    here: Surroundings, stub: StubServer, snapshot: MarketSnapshot, seed: int
) -> None:
    await _random_kills(here, stub, snapshot, kills=25, seed=seed)


async def test_kills_at_random_instants_lose_and_double_nothing(
    here: Surroundings, stub: StubServer, snapshot: MarketSnapshot
) -> None:
    await _random_kills(here, stub, snapshot, kills=2, seed=15)


async def _random_kills(
    here: Surroundings, stub: StubServer, snapshot: MarketSnapshot, *, kills: int, seed: int
) -> None:
    rng = random.Random(seed)
    runs: dict[str, str] = {}
    for number in range(kills):
        with here.serving() as process:
            symbols = [f"S{number}X{i}USDT" for i in range(3)]
            tasks = [asyncio.create_task(_posted(process, snapshot, s)) for s in symbols]
            await asyncio.to_thread(lambda p=process: p.port)
            if number % 2:  # in the middle of runs; otherwise perhaps before any is accepted
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(rng.uniform(0, 0.3))
            process.kill()
            posted = await asyncio.gather(*tasks)
            runs |= {run: symbol for symbol, run in posted if run is not None}
    with here.serving():
        summaries = await _ended(here, set(runs))
    assert runs, "no snapshot was accepted before its process was killed"
    assert {one.state for one in summaries.values()} == {"done"}
    # What was accepted without an answer is decided on as well.
    assert set(runs) <= set(summaries)
    assert _decisions(here) == {one.symbol: 1 for one in summaries.values()}
    # A model that was asked twice without an end is not asked again: that is a HOLD, and no order.
    traded = {one.symbol: 1 for one in summaries.values() if one.action == "LONG"}
    assert _opening_orders(here) == traded
    assert len(traded) >= len(summaries) - kills
    # Each kill interrupts three calls at most.
    assert len(stub.requests) <= len(summaries) + 3 * kills
    assert max(Counter(request.prompt for request in stub.requests).values()) <= 2
    assert Ledger(here.folder / "paper.sqlite").check().problems == ()


async def _posted(
    process: ServingProcess, snapshot: MarketSnapshot, symbol: str
) -> tuple[str, str | None]:
    """The run of a snapshot; None if the process died before it answered."""
    try:
        await asyncio.to_thread(lambda: process.port)
        receipt = await process.post(post_of(snapshot, symbol, _now_ms()), timeout_s=2.0)
    except (LlmTraderError, OSError, EOFError):
        return symbol, None
    return symbol, str(receipt["run_id"])


@pytest.mark.postgres
async def test_another_process_takes_the_runs_of_a_dead_one_over(
    here: Surroundings, stub: StubServer, snapshot: MarketSnapshot, postgres: Any
) -> None:
    here.more = {
        "workflow.runs.postgres_url": postgres.new_database(),
        "workflow.runs.sweep_s": 0.2,
    }
    with here.serving(kill_at="execute ends") as dying:
        receipt = await dying.post(post_of(snapshot, "BTCUSDT", _now_ms()))
        assert await asyncio.to_thread(dying.ended_by) == signal.SIGKILL
        with here.serving():
            summaries = await _ended(here, {receipt["run_id"]})
    assert summaries[receipt["run_id"]].state == "done"
    assert len(stub.requests) == 1
    assert _opening_orders(here) == {"BTCUSDT": 1}


@pytest.mark.postgres
async def test_processes_on_postgres_share_the_work(
    here: Surroundings, stub: StubServer, snapshot: MarketSnapshot, postgres: Any
) -> None:
    here.more = {
        "workflow.runs.postgres_url": postgres.new_database(),
        "workflow.runs.at_once": 2,
    }
    with here.serving() as first, here.serving() as second:
        assert await asyncio.to_thread(lambda: second.port)
        posts = [post_of(snapshot, f"S{i}USDT", _now_ms()) for i in range(16)]
        receipts = [await first.post(post) for post in posts]
        summaries = await _ended(here, {one["run_id"] for one in receipts})
    shares = Counter(one.executor for one in summaries.values())
    assert len(shares) == 2, shares
    assert min(shares.values()) >= 2
    assert set(_opening_orders(here).values()) == {1}


def test_a_second_process_on_sqlite_is_refused_with_the_remedy(here: Surroundings) -> None:
    with here.serving() as first:
        assert first.port
        with here.serving() as second, pytest.raises(ConfigurationError) as caught:
            assert second.port
    said = caught.value.message
    assert f"process {first.process.pid} carries out the runs" in said
    assert "set workflow.runs.postgres_url to share the work" in said


def _written(here: Surroundings, name: str, *changes: tuple[str, str]) -> Path:
    text = changed(*changes).text
    for file, content in text.files.items():
        path = here.folder / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return here.folder / name / text.main
