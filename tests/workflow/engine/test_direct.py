"""Runs that a process on SQLite begins at once, and the library's record that follows."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from llm_trader.clock import WallClock
from llm_trader.delivery.jobs import SnapshotPost
from llm_trader.errors import InvalidInputError, StoreError
from llm_trader.retrieval.answer import Answer
from llm_trader.rpc.errors import OverloadedError
from llm_trader.timeframe import MINUTE_MS
from llm_trader.workflow.engine.config import RunsConfig
from llm_trader.workflow.engine.durable import direct, run_log
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
            async with asyncio.timeout(30):
                while StageJournal(tmp_path).run_ids():  # noqa: ASYNC110  cleaned in the background
                    await asyncio.sleep(0.05)
            return await runs.show(start.run_id)

    # The library's threads are those of an event loop.
    before, details = asyncio.run(carried_out()), asyncio.run(recorded())
    assert details.summary.state == "done"
    assert (first.executed, second.executed) == ([start.run_id], [])
    assert (second.queries, second.decided) == ([], [])
    assert msgspec.to_builtins(details.records) == msgspec.to_builtins(before.records)


async def test_a_run_that_has_ended_never_seems_to_go_on_again(
    tmp_path: Path, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while its record goes to the library; a cancellation is refused then, too."""
    monkeypatch.setattr(direct, "_CLEANS_EVERY_S", 0.01)
    config, states = RunsConfig(folder=tmp_path, poll_ms=10), []
    database = run_database(config, {})
    async with durable_engine(
        database, config, Calls(answer).services(), follows_after_s=0.01
    ) as runs:
        start = start_of(shipped())
        await runs.start(start)
        await runs.wait(start.run_id)
        async with asyncio.timeout(30):
            while StageJournal(tmp_path).run_ids():
                states.append((await runs.runs(limit=1))[0].state)
        states.append((await runs.show(start.run_id)).summary.state)
        assert set(states) == {"done"}
        with pytest.raises(InvalidInputError, match="has ended"):
            await runs.cancel(start.run_id)


async def test_a_run_cancelled_while_it_waits_for_its_symbol_begins_nothing(
    tmp_path: Path, answer: Answer
) -> None:
    config, calls = RunsConfig(folder=tmp_path), Calls(answer, slow_s=0.2)
    first, second = (start_of(shipped(), received("BTCUSDT", number)) for number in range(2))
    async with durable_engine(run_database(config, {}), config, calls.services()) as runs:
        await runs.start(first)
        await runs.start(second)
        await runs.cancel(second.run_id)
        await asyncio.gather(*(runs.wait(start.run_id) for start in (first, second)))
        assert (await runs.show(second.run_id)).summary.state == "cancelled"
    assert (len(calls.queries), len(calls.decided)) == (1, 1)
    assert calls.executed == [first.run_id]


async def test_a_process_that_stops_begins_no_stage_again(
    tmp_path: Path, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    """The library waits for the end of a run whose model is slow; it must not go on instead."""
    config, calls = RunsConfig(folder=tmp_path, poll_ms=10), Calls(answer, slow_s=60)
    database, start = run_database(config, {}), start_of(shipped())
    async with durable_engine(database, config, calls.services(), follows_after_s=0.01) as runs:
        assert isinstance(runs, direct.DirectRuns)
        await runs.start(start)
        async with asyncio.timeout(30):
            while not await runs.executors_of_running():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await runs.stop()
        await asyncio.sleep(0.2)
        assert len(calls.queries) == 1
        assert [one.getMessage() for one in caplog.records if one.name == "dbos"] == []
        assert await runs.unended() == [start]
        assert (await runs.show(start.run_id)).summary.state == "running"


async def test_stages_of_another_version_are_kept_for_the_program_that_noted_them(
    tmp_path: Path, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, calls = RunsConfig(folder=tmp_path), Calls(answer)
    database, start = run_database(config, {}), start_of(shipped())
    database.prepare()
    async with durable_engine(database, config, calls.services()):
        pass  # makes the tables
    former = RunLog(database, {})
    monkeypatch.setattr(run_log, "VERSION", "runs-1")
    await former.start(start)
    former.close()
    monkeypatch.undo()
    row = StageRow(start.run_id, "guard", "[]")
    StageJournal(tmp_path).record([row, StageRow("of a run that was deleted", "guard", "[]")])
    async with durable_engine(database, config, calls.services()):
        async with asyncio.timeout(30):
            while len(noted := StageJournal(tmp_path).run_ids()) > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert noted == [start.run_id]
    assert calls.executed == []


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
