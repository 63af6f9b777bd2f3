"""Runs that a process on SQLite begins at once, and the library's record that follows."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from llm_trader.clock import WallClock
from llm_trader.delivery.jobs import SnapshotPost
from llm_trader.errors import StoreError
from llm_trader.retrieval.answer import Answer
from llm_trader.rpc.errors import OverloadedError
from llm_trader.timeframe import MINUTE_MS
from llm_trader.workflow.engine.config import RunsConfig
from llm_trader.workflow.engine.durable.database import run_database
from llm_trader.workflow.engine.durable.engine import durable_engine
from llm_trader.workflow.engine.durable.journal import END, FILE_NAME, StageJournal, StageRow
from llm_trader.workflow.engine.durable.run_log import RunLog
from llm_trader.workflow.engine.protocol import RunDetails, RunOptions, RunResult
from llm_trader.workflow.intake import IntakeMethods
from tests.workflow.graphs import shipped
from tests.workflow.services import START_MS, Calls, received, start_of


def _post(symbol: str) -> SnapshotPost:
    snapshot = received(symbol).snapshot
    return SnapshotPost(
        job_id=symbol, snapshot_id=symbol, deadline_ms=START_MS + MINUTE_MS, snapshot=snapshot
    )


async def _all_recorded(runs: RunLog) -> None:
    async with asyncio.timeout(30):
        while await runs.unended():  # noqa: ASYNC110  threads of the library record them
            await asyncio.sleep(0.05)


def test_the_record_of_a_run_follows_without_repeating_it(tmp_path: Path, answer: Answer) -> None:
    """The process is stopped after the order, before the library has any record of it."""
    database, first, second = run_database(RunsConfig(folder=tmp_path), {}), Calls(answer), Calls()
    start = start_of(shipped())

    async def carried_out() -> RunResult:
        async with durable_engine(database, RunsConfig(folder=tmp_path), first.services()) as runs:
            await runs.start(start)
            result = await runs.wait(start.run_id)
            assert await runs.depth() == 0
            assert len(await runs.unended()) == 1
            assert [one.run_id for one in await runs.runs(limit=9, state="done")] == [start.run_id]
        return result

    async def recorded() -> RunDetails:
        async with durable_engine(database, RunsConfig(folder=tmp_path), second.services()) as runs:
            await _all_recorded(runs)
            return await runs.show(start.run_id)

    # The library's threads are those of an event loop.
    before, details = asyncio.run(carried_out()), asyncio.run(recorded())
    assert details.summary.state == "done"
    assert (first.executed, second.executed) == ([start.run_id], [])
    assert (second.queries, second.decided) == ([], [])
    assert msgspec.to_builtins(details.records) == msgspec.to_builtins(before.records)
    assert StageJournal(tmp_path).run_ids() == []


def test_a_symbol_has_one_run_under_way_and_its_runs_keep_their_order(
    tmp_path: Path, answer: Answer
) -> None:
    """The first two are left over from a process that died before it began them."""
    config, calls = RunsConfig(folder=tmp_path), Calls(answer, slow_s=0.02)
    database = run_database(config, {})
    starts = [
        msgspec.structs.replace(
            start_of(shipped(), received("BTCUSDT", number)), accepted_at_ms=START_MS + number
        )
        for number in range(4)
    ]

    async def died() -> None:
        async with durable_engine(database, config, calls.services()):
            pass  # makes the tables
        left_over = RunLog(database, {})
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
        for start in starts[:2]:
            await left_over.start(start)
        left_over.close()

    async def carried_out() -> None:
        async with durable_engine(database, config, calls.services()) as runs:
            await asyncio.gather(*map(runs.start, starts[2:]))
            await runs.wait(starts[3].run_id)
            # None of them waited for the library's queue, which follows them one by one.
            assert starts[3] in await runs.unended()

    asyncio.run(died())
    asyncio.run(carried_out())
    assert calls.most_of_a_symbol == 1
    assert calls.executed == [start.run_id for start in starts]


async def test_no_more_runs_go_on_at_once_than_the_settings_allow(
    tmp_path: Path, answer: Answer
) -> None:
    config, calls = RunsConfig(folder=tmp_path, at_once=3), Calls(answer, slow_s=0.02)
    async with durable_engine(run_database(config, {}), config, calls.services()) as runs:
        starts = [start_of(shipped(), received(f"S{i}USDT")) for i in range(9)]
        await asyncio.gather(*map(runs.start, starts))
        await asyncio.gather(*(runs.wait(start.run_id) for start in starts))
    assert calls.most_under_way == 3
    assert len(calls.executed) == 9


async def test_a_burst_does_not_go_beyond_the_limit_of_the_intake(
    tmp_path: Path, answer: Answer
) -> None:
    config, calls = RunsConfig(folder=tmp_path), Calls(answer, slow_s=0.2)
    async with durable_engine(run_database(config, {}), config, calls.services()) as runs:
        intake = IntakeMethods(
            engine=runs,
            graph=shipped(),
            options=RunOptions(),
            clock=WallClock(lambda: START_MS),
            max_queued=3,
        )
        posts = [_post(f"S{i}USDT") for i in range(10)]
        results = await asyncio.gather(*map(intake.take_snapshot, posts), return_exceptions=True)
        accepted = [one for one in results if not isinstance(one, BaseException)]
        refused = [one for one in results if isinstance(one, OverloadedError)]
        assert (len(accepted), len(refused)) == (3, 7)


def test_a_stage_is_noted_once_and_an_end_apart_from_it(tmp_path: Path) -> None:
    journal = StageJournal(tmp_path)
    assert (journal.run_ids(), journal.stages("a")) == ([], {})
    assert not (tmp_path / FILE_NAME).exists()  # a look makes no file
    journal.record([StageRow("a", "guard", "1"), StageRow("b", "guard", "2")])
    journal.record([StageRow("a", END, "3")])
    journal.close()
    again = StageJournal(tmp_path)
    assert again.stages("a") == {"guard": "1"}
    assert again.ends() == {"a": "3"}
    again.remove(["a"])
    assert again.run_ids() == ["b"]
    again.close()


def test_a_file_that_is_no_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match=r"stages\.sqlite cannot be used: .* check the disk"):
        StageJournal(tmp_path).run_ids()
