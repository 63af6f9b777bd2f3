"""One suite for all engines."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from llm_trader.errors import InvalidInputError, LlmTraderError
from llm_trader.retrieval.answer import Answer
from llm_trader.workflow.engine.config import RunsConfig
from llm_trader.workflow.engine.durable.database import run_database
from llm_trader.workflow.engine.memory import MemoryEngine
from llm_trader.workflow.engine.protocol import Engine, RunNotFoundError
from llm_trader.workflow.graph.document import RpcConfig
from llm_trader.workflow.nodes.running import Services
from llm_trader.workflow.values import QueryInputs
from tests.workflow.graphs import changed, shipped
from tests.workflow.services import Calls, received, start_of

Open = Callable[[Services], AbstractAsyncContextManager[Engine]]


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    return _opening(request, tmp_path)


# For what is not about how runs are kept: quick tests have it in memory.
@pytest.fixture(
    params=[
        "memory",
        pytest.param("sqlite", marks=pytest.mark.soak),
        pytest.param("postgres", marks=pytest.mark.postgres),
    ]
)
def plain_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    return _opening(request, tmp_path)


def _opening(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    if request.param == "memory":

        @asynccontextmanager
        async def memory(services: Services) -> AsyncIterator[Engine]:
            yield MemoryEngine(services)

        return memory
    from llm_trader.workflow.engine.durable.engine import durable_engine

    url = None
    if request.param == "postgres":
        url = request.getfixturevalue("postgres").new_database()
    config = RunsConfig(folder=tmp_path, postgres_url=url, poll_ms=20)

    @asynccontextmanager
    async def durable(services: Services) -> AsyncIterator[Engine]:
        async with durable_engine(run_database(config, {}), config, services) as log:
            yield log

    return durable


async def test_a_run_goes_from_the_snapshot_to_the_order(engine: Open, answer: Answer) -> None:
    calls = Calls(answer=answer)
    async with engine(calls.services()) as runs:
        start = start_of(shipped())
        accepted = await runs.start(start)
        result = await runs.wait(accepted.run_id)
        details = await runs.show(accepted.run_id)
    assert accepted.is_new
    assert result.state == "done"
    statuses = {one.node: one.status for one in details.records}
    assert statuses.pop("baseline", "skipped") == "skipped"
    assert set(statuses.values()) == {"done"}
    assert calls.queries[0].current_state == received().snapshot
    assert calls.decided[0].answer == answer
    assert calls.decided[0].prompts.rag is not None
    assert calls.executed == [start.run_id]
    assert (details.summary.action, details.summary.execution) == ("LONG", "placed")
    assert details.graph == start.graph
    assert details.event == start.event


async def test_without_the_server_the_baseline_prompt_decides(plain_engine: Open) -> None:
    calls = Calls()
    async with plain_engine(calls.services()) as runs:
        accepted = await runs.start(start_of(changed(("waitBetweenTries: 200", ""))))
        result = await runs.wait(accepted.run_id)
        (summary,) = await runs.runs(limit=10)
    statuses = {one.node: one.status for one in result.records}
    assert (statuses["rag"], statuses["baseline"]) == ("failed", "done")
    assert "prompt" not in statuses or statuses["prompt"] == "skipped"
    (decided,) = calls.decided
    assert decided.prompts.rag is None
    assert decided.retrieval_error == "no server answers"
    assert summary.note == "no server answers"
    assert len(calls.queries) == 2  # maxTries


async def test_a_snapshot_is_decided_once(engine: Open, answer: Answer) -> None:
    calls = Calls(answer=answer)
    async with engine(calls.services()) as runs:
        starts = [start_of(shipped()) for _ in range(5)]
        accepted = await asyncio.gather(*map(runs.start, starts))
        await runs.wait(starts[0].run_id)
        later = await runs.start(starts[0])
    assert sum(one.is_new for one in accepted) == 1
    assert not later.is_new
    assert len(calls.executed) == 1


async def test_a_retried_query_brings_its_answer(plain_engine: Open, answer: Answer) -> None:
    calls = Calls(answer=answer, failures=1)
    async with plain_engine(calls.services()) as runs:
        graph = changed(("waitBetweenTries: 200", "waitBetweenTries: 0"))
        accepted = await runs.start(start_of(graph))
        result = await runs.wait(accepted.run_id)
    assert {one.node: one.attempts for one in result.records}["rag"] == 2
    assert calls.decided[0].answer == answer


async def test_a_slow_query_times_out(plain_engine: Open, answer: Answer) -> None:
    calls = Calls(answer=answer)

    async def slow(inputs: QueryInputs, rpc: RpcConfig, query: Mapping[str, Any]) -> Answer:
        await asyncio.sleep(30)
        return answer

    services = dataclasses.replace(calls.services(), retrieve=slow)
    async with plain_engine(services) as runs:
        graph = changed(("timeout: 5000", "timeout: 20"), ("retryOnFail: true", ""))
        accepted = await runs.start(start_of(graph))
        result = await runs.wait(accepted.run_id)
    errors = {one.node: one.error for one in result.records}
    assert errors["rag"] is not None
    assert errors["rag"].code == "timeout"
    assert calls.decided[0].retrieval_error == "rag took longer than 20 ms"


async def test_a_run_ends_where_a_node_fails_and_can_be_resumed_there(
    engine: Open, answer: Answer
) -> None:
    calls = Calls(answer=answer)
    broken = True

    async def execute(inputs: Any, run: Any) -> Any:
        if broken:
            raise LlmTraderError("the broker is away")
        return await calls.execute(inputs, run)

    services = dataclasses.replace(calls.services(), execute=execute)
    async with engine(services) as runs:
        run_id = (await runs.start(start_of(shipped()))).run_id
        result = await runs.wait(run_id)
        assert result.state == "failed"
        assert result.error is not None
        assert "the broker is away" in result.error
        (failed,) = await runs.runs(limit=10, state="failed")
        assert (failed.error, failed.action) == ("execute: the broker is away", "LONG")
        broken = False
        await runs.resume(run_id)
        assert (await runs.wait(run_id)).state == "done"
    assert calls.executed == [run_id]


async def test_a_fault_of_a_service_ends_its_own_run_only(
    plain_engine: Open, answer: Answer
) -> None:
    calls = Calls(answer=answer)

    async def decide(inputs: Any, run: Any) -> Any:
        if inputs.snapshot.symbol == "BADUSDT":
            raise ZeroDivisionError("by zero")
        return await calls.decide(inputs, run)

    services = dataclasses.replace(calls.services(), decide=decide)
    with capture_logs() as log:
        async with plain_engine(services) as runs:
            bad = await runs.start(start_of(shipped(), received("BADUSDT")))
            good = await runs.start(start_of(shipped(), received("BTCUSDT")))
            assert (await runs.wait(bad.run_id)).error == "decide: ZeroDivisionError: by zero"
            assert (await runs.wait(good.run_id)).state == "done"
    assert [line["log_level"] for line in log if line.get("exc_info")] == ["error"]


async def test_shadow_mode_decides_and_executes_nothing(plain_engine: Open, answer: Answer) -> None:
    calls = Calls(answer=answer)
    async with plain_engine(calls.services()) as runs:
        run_id = (await runs.start(start_of(shipped(), shadow=True))).run_id
        await runs.wait(run_id)
        summary = (await runs.show(run_id)).summary
    assert (summary.action, summary.execution) == ("LONG", "shadow")
    assert calls.executed == []


async def test_a_cancelled_run_begins_no_further_node(engine: Open, answer: Answer) -> None:
    calls = Calls(answer=answer, slow_s=0.3)
    async with engine(calls.services()) as runs:
        run_id = (await runs.start(start_of(shipped()))).run_id
        while not calls.queries:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert await runs.depth() == 1
        await runs.cancel(run_id)
        while await runs.depth():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        assert (await runs.show(run_id)).summary.state == "cancelled"
        assert calls.executed == []
        await runs.resume(run_id)
        assert (await runs.wait(run_id)).state == "done"
    assert calls.executed == [run_id]


async def test_symbols_run_side_by_side(engine: Open, answer: Answer) -> None:
    calls = Calls(answer=answer, slow_s=0.2)
    async with engine(calls.services()) as runs:
        starts = [start_of(shipped(), received(f"S{i}USDT")) for i in range(6)]
        for start in starts:
            await runs.start(start)
        for start in starts:
            assert (await runs.wait(start.run_id)).state == "done"
    assert calls.most_under_way >= 3
    assert sorted(calls.executed) == sorted(start.run_id for start in starts)


async def test_an_unknown_run_is_named(plain_engine: Open) -> None:
    async with plain_engine(Calls().services()) as runs:
        with pytest.raises(RunNotFoundError, match="there is no run nothing"):
            await runs.show("nothing")
        with pytest.raises((RunNotFoundError, InvalidInputError)):
            await runs.cancel("nothing")
