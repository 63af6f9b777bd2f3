"""`llm-trader data archive` against a real server, as its own process where it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from llm_trader.market.archive.plan import ArchiveRecord
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import M3, parse_time
from tests.cli.conftest import Typing
from tests.market.archive_server import (
    SYMBOL,
    ArchiveServer,
    busy,
    market,
    serving,
    tree,
    zipped,
)
from tests.market.stores import content
from tests.processes import Forked

PROGRAM = "from llm_trader.cli.main import main; main()"
SPAN = ["--symbols", SYMBOL, "--start", "2024-11-24", "--end", "2025-01-08"]
_SOURCES = ("origin ", "ledgers ")
DAY_METRICS = f"daily/metrics/{SYMBOL}/{SYMBOL}-metrics-2024-11-26.zip"


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return tree(market())


@pytest.fixture
def archive(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[ArchiveServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(files) as server:
        yield server


def verified(store: Path) -> set[str]:
    """Names of the files that a killed run has stored, or that wait for their import."""
    names = {path.name for path in (store / "archive-downloads").glob("*.zip")}
    if (store / "data.mdb").exists():
        with MarketStore.open(store) as opened:
            for path, record in opened.notes("archive").items():
                if msgspec.json.decode(record, type=ArchiveRecord).state == "stored":
                    names.add(path.rpartition("/")[2])
    return names


@pytest.mark.soak
def test_a_killed_run_goes_on_and_fetches_nothing_verified_again(
    typed: Typing, archive: ArchiveServer, tmp_path: Path
) -> None:
    line = "llm-trader data archive --json --archive-url"
    undisturbed = typed(line, archive.url, *SPAN, "--store", tmp_path / "a")
    assert undisturbed.code == 0
    files_there = archive.bodies.total()
    archive.bodies.clear()

    archive.delay_seconds = 0.01
    flags = [*SPAN, "--archive-url", archive.url, "--store", str(tmp_path / "b")]
    command = [sys.executable, "-c", PROGRAM, "data", "archive", *flags]
    kills = 0
    before: set[str] = set()
    counts: dict[str, int] = {}
    for wanted in (2, 6, 15, 30):
        with Forked(command, stdout=subprocess.DEVNULL, env=os.environ) as process:
            while process.poll() is None and archive.bodies.total() < wanted:
                time.sleep(0.001)
            process.kill()
        kills += process.returncode == -9
        time.sleep(0.1)  # until the server has noticed
        after = verified(tmp_path / "b")
        assert before <= after
        fetched = {path.rpartition("/")[2]: count for path, count in archive.bodies.items()}
        assert not [name for name in before if fetched[name] > counts[name]]
        before, counts = after, fetched
    assert kills == 4
    assert 0 < len(before) < files_there

    finished = typed(line, archive.url, *SPAN, "--store", tmp_path / "b")
    assert finished.code == 0
    fetched = {path.rpartition("/")[2]: count for path, count in archive.bodies.items()}
    assert not [name for name in before if fetched[name] > counts[name]]
    with MarketStore.open(tmp_path / "a") as one, MarketStore.open(tmp_path / "b") as other:
        # Its sources were fetched at other times.
        rows, others = (
            {key: value for key, value in content(store).items() if not key.startswith(_SOURCES)}
            for store in (one, other)
        )
        assert rows == others
    assert typed("llm-trader data check --deep --store", tmp_path / "b").code == 0


@pytest.mark.soak
def test_ctrl_c_ends_at_once_and_keeps_what_is_stored(
    typed: Typing, archive: ArchiveServer, tmp_path: Path
) -> None:
    late = DAY_METRICS.replace("2024-11-26", "2025-01-05")
    # A thread that waits for a busy archive must not be waited for.
    archive.answers[late] = [busy(503, Retry_After="300")]
    flags = [*SPAN, "--archive-url", archive.url, "--store", str(tmp_path / "a")]
    command = [sys.executable, "-c", PROGRAM, "data", "archive", *flags]
    with Forked(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ, text=True
    ) as process:
        while process.poll() is None and not archive.requests[late]:
            time.sleep(0.001)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    with MarketStore.open(tmp_path / "a") as store:
        assert len(store.candles(SYMBOL, M3)) > 0
    assert typed("llm-trader data archive", *flags).code == 0
    assert archive.bodies.most_common(1)[0][1] == 1


def test_a_run_says_what_it_stored_and_what_is_not_there(
    typed: Typing, archive: ArchiveServer, tmp_path: Path
) -> None:
    del archive.files[DAY_METRICS]
    monthly = f"monthly/klines/{SYMBOL}/3m/{SYMBOL}-3m-2024-12.zip"
    archive.files[monthly] = archive.files[DAY_METRICS.replace("11-26", "11-27")]
    flags = [*SPAN, "--archive-url", archive.url, "--store", tmp_path / "a"]
    ran = typed("llm-trader data archive", *flags)
    assert ran.code == 1
    assert "not published from 2024-11-26 to 2024-11-27" in ran.out
    assert f"{monthly}: " in ran.out
    assert "gap in BTCUSDT candles 3m: 14880 candles from 2024-12-01T00:00:00Z" in ran.out


def test_a_recheck_stores_a_correction_and_refuses_the_file_of_another_day(
    typed: Typing, archive: ArchiveServer, tmp_path: Path
) -> None:
    flags = ["--archive-url", archive.url, "--store", tmp_path / "a"]
    assert typed("llm-trader data archive", *SPAN, *flags).code == 0
    fetched = archive.bodies.copy()
    monthly = f"monthly/fundingRate/{SYMBOL}/{SYMBOL}-fundingRate-2024-12.zip"
    name = monthly.rpartition("/")[2]
    header = "calc_time,funding_interval_hours,last_funding_rate"
    archive.files[monthly] = zipped(name, f"{header}\n{parse_time('2024-12-01')},8,0.0033\n")
    archive.files[DAY_METRICS] = archive.files[DAY_METRICS.replace("11-26", "11-27")]

    ran = typed("llm-trader data archive --recheck", *flags)

    assert archive.bodies - fetched == {DAY_METRICS: 1, monthly: 1}
    assert ran.code == 1
    shown = " ".join(ran.out.split())
    assert "time outside 2024-11-26, which the file is of (line 3, 2024-11-27" in shown
    assert "rag-ingest makes the states again" in ran.out
    with MarketStore.open(tmp_path / "a") as store:
        funding = store.funding(SYMBOL, parse_time("2024-12-01"))
    assert funding.rate[0] == 0.0033


def test_without_a_network_nothing_is_left_behind(
    typed: Typing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    line = "llm-trader data archive --symbols BTCUSDT --archive-url http://127.0.0.1:9 --store"
    ran = typed(line, tmp_path / "a")
    assert ran.code == 2
    assert "127.0.0.1:9 cannot be reached (Connection refused)" in ran.err
    assert "market.archive.url" in ran.err
    assert not (tmp_path / "a" / "data.mdb").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "--symbols"),
        ("--symbols BTC?USDT", "BTCUSDT"),
        ("--symbols BTCUSDT --start 2025-01-02 --end 2025-01-01", "start is not before the end"),
        ("--symbols BTCUSDT --archive-url ftp://x", "market.archive.url"),
        ("--symbols BTCUSDT --timeframes 3x", "3x"),
    ],
)
def test_a_wrong_flag_is_named(typed: Typing, tmp_path: Path, flags: str, message: str) -> None:
    ran = typed(f"llm-trader data archive {flags} --store", tmp_path / "a")
    assert ran.code == 2
    assert message in ran.err
    assert not (tmp_path / "a").exists()
