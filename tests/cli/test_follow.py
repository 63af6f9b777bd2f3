"""`rag-ingest --follow` as a process, beside a writer of the store: kills, signals, losses."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llm_trader.app.ingestion import ingest_from_store
from llm_trader.app.job import Job
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import STATE, PointTable
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import DAY_MS, HOUR_MS
from tests.cli.conftest import Typing
from tests.cli.corridor import (
    END_MS,
    START_MS,
    SYMBOL,
    WARM_MS,
    Corridor,
    console_script,
    until,
    write,
)
from tests.index.builders import ALWAYS, same_content
from tests.processes import Forked

_REPOSITORY = Path(__file__).resolve().parents[2]
DAY_25 = START_MS + 25 * DAY_MS
DAY_27 = START_MS + 27 * DAY_MS
QUARTER_MS = 900_000

# Appends two days in parts, then fills in what it had left out and corrects what it had written.
WRITER = """
import sys, time
from dataclasses import replace
from pathlib import Path
from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import HOUR_MS, M5
from tests.cli.corridor import DAYS, START_MS, SYMBOL, write
from tests.cli.test_follow import DAY_25, DAY_27

history = simulate(SYMBOL, start_ms=START_MS, days=DAYS, seed=7, timeframe=M5)
with MarketStore.open(Path(sys.argv[1]), write=True) as store:
    for until_ms in range(DAY_25, DAY_27 + 1, 3 * HOUR_MS):
        known = history.known_at(until_ms)
        if DAY_25 + 24 * HOUR_MS < until_ms < DAY_27:  # the candles of an hour come late
            early = known.intraday.between(None, DAY_25 + 9 * HOUR_MS)
            late = known.intraday.between(DAY_25 + 10 * HOUR_MS, None)
            for part in (early, late):
                store.write(SYMBOL, part, "feed", written_at_ms=until_ms)
        else:
            write(store, known)
        time.sleep(0.15)
    wrong = history.intraday.between(DAY_25 - 4 * HOUR_MS, DAY_25)
    store.write(SYMBOL, replace(wrong, volume=wrong.volume + 1), "feed", written_at_ms=DAY_27)
"""


@pytest.fixture
def store(corridor: Corridor, tmp_path: Path) -> Path:
    """25 days of one symbol."""
    path = tmp_path / "store"
    with MarketStore.open(path, write=True, exchange="simulated") as opened:
        write(opened, corridor.histories[SYMBOL].known_at(DAY_25))
    return path


class Follower:
    """The process, and the lines that it has printed and logged."""

    def __init__(self, process: subprocess.Popen[str], out: Path, log: Path) -> None:
        self.process = process
        self._out, self._log = out, log

    @property
    def reports(self) -> list[Any]:
        return [json.loads(line) for line in _whole_lines(self._out)]

    @property
    def events(self) -> list[Any]:
        return [json.loads(line) for line in _whole_lines(self._log)]

    def logged(self, event: str) -> bool:
        return any(entry["event"] == event for entry in self.events)


def _whole_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


@contextmanager
def following(store: Path, index: Path, *more: str) -> Iterator[Follower]:
    """Killed at the end unless it has ended."""
    out, log = index.with_name("out.txt"), index.with_name("log.txt")
    line = [console_script("rag-ingest"), "--follow", "--json", "--store", str(store)]
    with (
        out.open("w") as stdout,
        log.open("w") as stderr,
        Forked(
            [*line, "--index", str(index), *more], stdout=stdout, stderr=stderr, text=True
        ) as process,
    ):
        follower = Follower(process, out, log)
        try:
            assert until(lambda: follower.logged("following"), seconds=60), log.read_text()
            yield follower
        finally:
            process.kill()


def written_by_another_process(store: Path) -> subprocess.Popen[bytes]:
    return Forked([sys.executable, "-c", WRITER, str(store)], cwd=_REPOSITORY)


def points_of(path: Path) -> PointTable:
    async def scanned() -> PointTable:
        with EmbeddedIndex.open(path) as index:
            return await index.scan(SYMBOL, ALWAYS, [STATE])

    return asyncio.run(scanned())


def newest_ms(path: Path) -> int:
    return int(points_of(path).timestamp_ms[-1])


def ingested_afterwards(corridor: Corridor, store: Path, path: Path) -> PointTable:
    settings = corridor.settings(market__store=store, index__path=path)
    ingest_from_store(Job(settings, {}, END_MS), [], START_MS, END_MS)
    return points_of(path)


@pytest.mark.soak
def test_the_index_of_a_follower_equals_one_ingested_afterwards(
    corridor: Corridor, store: Path, tmp_path: Path
) -> None:
    index = tmp_path / "followed"
    with following(store, index) as follower:
        first = follower.reports[0]
        assert (first["symbol"], first["added"]) == (SYMBOL, (4 * DAY_MS) // QUARTER_MS + 1)
        with written_by_another_process(store) as writer:
            assert writer.wait(60) == 0
        afterwards = ingested_afterwards(corridor, store, tmp_path / "afterwards")
        assert until(lambda: same_content(points_of(index), afterwards), seconds=30)
        reports = follower.reports
        assert sum(report["remade"] for report in reports) > 0
        assert all(r["added"] or r["remade"] or r["removed"] for r in reports)
        follower.process.send_signal(signal.SIGTERM)
        assert follower.process.wait(20) == 0
    assert int(afterwards.timestamp_ms[-1]) == DAY_27 - DAY_MS
    # It is one run, however many ingestions it took.
    assert set(points_of(index).run.tolist()) == {1}


@pytest.mark.soak
def test_a_follower_that_was_killed_goes_on_after_a_restart(
    corridor: Corridor, store: Path, tmp_path: Path
) -> None:
    index = tmp_path / "followed"
    with written_by_another_process(store) as writer:
        for _ in range(3):
            with following(store, index) as follower:
                time.sleep(0.5)
                follower.process.kill()
        assert writer.wait(60) == 0
    with following(store, index):
        afterwards = ingested_afterwards(corridor, store, tmp_path / "afterwards")
        assert until(lambda: same_content(points_of(index), afterwards), seconds=30)


@pytest.mark.parametrize(
    "signum", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.soak)]
)
def test_a_signal_stops_it_within_two_seconds_with_exit_code_0(
    store: Path, tmp_path: Path, signum: signal.Signals
) -> None:
    with following(store, tmp_path / "index") as follower:
        follower.process.send_signal(signum)
        assert follower.process.wait(2) == 0
        assert follower.events[-1]["event"] == "following_stopped"


@pytest.mark.soak
def test_a_second_writer_of_the_index_is_refused_with_the_pid_of_the_first(
    store: Path, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    with following(store, index) as follower:
        second = subprocess.run(
            [console_script("rag-ingest"), "--follow", "--store", store, "--index", index],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert second.returncode == 2
        assert second.stdout == ""
        expected = f"error: process {follower.process.pid} is writing to {index}"
        assert second.stderr.startswith(expected)
        assert follower.process.poll() is None


@pytest.mark.soak
def test_it_outlives_a_store_that_is_away_and_one_that_is_replaced(
    corridor: Corridor, store: Path, tmp_path: Path
) -> None:
    index, later = tmp_path / "index", tmp_path / "later"
    shutil.copytree(store, later)
    with MarketStore.open(later, write=True) as opened:
        write(opened, corridor.histories[SYMBOL].known_at(DAY_25 + 6 * HOUR_MS))
    with following(store, index) as follower:
        assert newest_ms(index) == DAY_25 - DAY_MS
        store.rename(tmp_path / "away")
        assert until(lambda: follower.logged("following_paused"), seconds=30)
        (paused, *_) = [e for e in follower.events if e["event"] == "following_paused"]
        assert str(store) in paused["reason"]
        assert paused["next_try_in_s"] >= 1
        later.rename(store)
        assert until(lambda: newest_ms(index) == DAY_25 - 18 * HOUR_MS, seconds=60)
        assert until(lambda: follower.logged("following_again"), seconds=10)
        assert follower.process.poll() is None


def test_symbols_that_come_later_are_followed(
    corridor: Corridor, store: Path, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    with following(store, index) as follower:
        history = corridor.histories["ETHUSDT"].known_at(WARM_MS + 2 * DAY_MS)
        with MarketStore.open(store, write=True) as opened:
            opened.write("ETHUSDT", history.funding, "feed", written_at_ms=DAY_25)
            time.sleep(1.5)  # a look sees a symbol without candles
            write(opened, history)
        assert until(lambda: "ETHUSDT" in str(follower.reports), seconds=30)
        assert follower.process.poll() is None


@pytest.mark.parametrize(
    ("flag", "message"),
    [("--rebuild", "run --rebuild before it"), ("--end 2025-01-20", "leave --end out")],
)
def test_what_cannot_go_on_is_refused(
    typed: Typing, store: Path, tmp_path: Path, flag: str, message: str
) -> None:
    refused = typed(f"rag-ingest --follow {flag} --store {store} --index {tmp_path / 'index'}")
    assert refused.code == 2
    assert message in refused.err
    assert not (tmp_path / "index").exists()


@pytest.mark.soak
def test_states_older_than_what_the_store_keeps_are_removed(store: Path, tmp_path: Path) -> None:
    index, cut_ms = tmp_path / "index", WARM_MS + DAY_MS
    with following(store, index) as follower:
        before = points_of(index)
        with MarketStore.open(store, write=True) as opened:
            opened.remove_before(cut_ms)
        kept = before.take(before.timestamp_ms > cut_ms)
        assert until(lambda: same_content(points_of(index), kept), seconds=30)
        assert follower.reports[-1]["remade"] == 0


@pytest.mark.soak
def test_an_index_that_was_deleted_is_made_again_with_the_next_data(
    corridor: Corridor, store: Path, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    with following(store, index) as follower:
        shutil.rmtree(index)
        later_ms = DAY_25 + 2 * HOUR_MS
        with MarketStore.open(store, write=True) as opened:
            write(opened, corridor.histories[SYMBOL].known_at(later_ms))
        assert until(lambda: follower.logged("following_again"), seconds=30)
        assert until(lambda: newest_ms(index) == later_ms - DAY_MS, seconds=30)
        afterwards = ingested_afterwards(corridor, store, tmp_path / "afterwards")
        assert same_content(points_of(index), afterwards)
