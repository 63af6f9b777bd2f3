"""`llm-trader data fetch` against the fake exchange, as real processes where that matters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_trader.market.simulation import simulate
from llm_trader.timeframe import DAY_MS
from tests.cli.conftest import Typing
from tests.cli.corridor import console_script
from tests.exchange.listings import listing_of
from tests.exchange.server import FakeExchange
from tests.exchange.stores import meta_of, rows_of
from tests.market.builders import START_MS
from tests.processes import Forked

pytest.importorskip("ccxt")

DAYS = 30
NOW_MS = START_MS + DAYS * DAY_MS - 100_000
LINE = "llm-trader data fetch --symbols BTCUSDT"


@pytest.fixture(scope="module")
def served() -> Iterator[FakeExchange]:
    symbols = ("BTCUSDT", "ETHUSDT")
    histories = [simulate(s, start_ms=START_MS, days=DAYS, seed=4) for s in symbols]
    with FakeExchange(map(listing_of, histories), NOW_MS) as running:
        yield running


@pytest.fixture
def exchange(served: FakeExchange, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeExchange]:
    for name, value in served.environ().items():
        monkeypatch.setenv(name, value)
    served.asked.clear()
    yield served
    served.delay_s = 0.0
    served.faults.waiting.clear()


def test_it_shows_what_was_fetched_and_goes_on_from_there(
    exchange: FakeExchange, typed: Typing, tmp_path: Path
):
    line = "llm-trader data fetch --exchange bybit --symbols BTC-USDT,ETHUSDT --start 5"
    line += f" --store {tmp_path}"
    shown = typed(line)
    assert (shown.code, shown.err) == (0, "")
    assert "Fetched from bybit" in shown.out
    assert "BTCUSDT 3m" in shown.out
    assert "ETHUSDT open interest" in shown.out
    report = typed(f"{line} --json").json
    assert report["exchange"] == "bybit"
    assert [series["write"]["added"] for series in report["series"]] == [0] * 8
    info = typed(f"llm-trader data info --store {tmp_path} --json").json
    assert info["exchange"] == "bybit"
    rows = {(s["symbol"], s["kind"], s["timeframe"]): s["rows"] for s in info["series"]}
    assert rows["BTCUSDT", "candles", "3m"] == 5 * 480 - 1
    check = typed(f"llm-trader data check --store {tmp_path} --deep")
    assert check.code == 0, check.out


@pytest.mark.parametrize("venue", [pytest.param("binance", marks=pytest.mark.soak), "bybit"])
def test_a_killed_fetch_goes_on_and_ends_in_the_same_store(
    venue: str, exchange: FakeExchange, typed: Typing, tmp_path: Path
):
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    line = f"{LINE} --exchange {venue} --start 12 --store"
    assert typed(line, calm).code == 0
    exchange.delay_s = 0.1
    exchange.asked.clear()
    process = _started(venue, killed, days=12)
    while len(exchange.asked) < 5 and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None
    process.kill()
    process.communicate()
    exchange.delay_s = 0.0
    exchange.asked.clear()
    finished = typed(line, killed)
    assert finished.code == 0, finished.err
    assert rows_of(killed) == rows_of(calm)
    assert meta_of(killed, "absent:") == meta_of(calm, "absent:")
    assert meta_of(killed, "gap:") == meta_of(calm, "gap:")


@pytest.mark.soak
def test_an_interrupted_fetch_keeps_its_pages_and_says_so(exchange: FakeExchange, tmp_path: Path):
    exchange.delay_s = 0.1
    process = _started("bybit", tmp_path / "store", days=25)
    while len(exchange.asked) < 8 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "interrupted; finished work is kept, run the command again\n"
    assert len(rows_of(tmp_path / "store")["candles_3m"]) >= 1000


def test_a_series_that_fails_makes_the_exit_code_and_the_others_go_on(
    exchange: FakeExchange, typed: Typing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LLM_TRADER_MARKET__EXCHANGE__MAX_ATTEMPTS", "1")
    exchange.faults.add("server_error", path="kline")
    shown = typed(f"{LINE} --exchange bybit --start 2 --store {tmp_path} --json")
    assert shown.code == 1
    errors = [series["error"] for series in shown.json["series"]]
    assert "did not answer" in errors[0]
    assert errors[1:] == [None] * 3
    shown = typed(f"{LINE} --exchange bybit --start 2 --store {tmp_path}")
    assert shown.code == 0


def test_what_is_wrong_is_said_with_the_remedy(
    exchange: FakeExchange, typed: Typing, tmp_path: Path
):
    store = tmp_path / "store"
    cases = {
        f"{LINE} --exchange kraken": "only from binance and bybit",
        f"{LINE} --exchange bybit --timeframes 7m": "bybit has no candles of 7m; choose of 1m, 3m",
        f"{LINE} --symbols BTCUSDT,BTCUSD --exchange bybit": "write symbols like BTCUSDT",
        f"{LINE} --exchange bybit --end 2023-01-01 --start 2023-02-01": "give an earlier start",
        "llm-trader data fetch --exchange bybit --symbols ,": "names no symbol",
    }
    for line, message in cases.items():
        shown = typed(f"{line} --store {store}")
        assert shown.code != 0, line
        assert message in shown.err, (line, shown.err)
        assert not store.exists()


def test_without_a_network_it_says_what_to_check(
    typed: Typing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LLM_TRADER_MARKET__EXCHANGE__BINANCE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("LLM_TRADER_MARKET__EXCHANGE__MAX_ATTEMPTS", "2")
    shown = typed(f"{LINE} --exchange binance --store {tmp_path / 'store'}")
    assert shown.code != 0
    assert "check the network" in shown.err
    assert "127.0.0.1:9" in shown.err
    assert not (tmp_path / "store").exists()


def test_without_the_extra_it_says_how_to_install_it(
    typed: Typing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "ccxt.async_support", None)
    shown = typed(f"{LINE} --exchange bybit --store {tmp_path / 'store'}")
    assert shown.code != 0
    assert "pip install 'llm-trader-rag[exchange]'" in shown.err


def test_the_store_of_another_exchange_is_refused(
    exchange: FakeExchange, typed: Typing, tmp_path: Path
):
    assert typed(f"{LINE} --exchange bybit --start 1 --store {tmp_path}").code == 0
    before = rows_of(tmp_path)
    exchange.asked.clear()
    for command in ("fetch --start 1", "collect"):
        line = f"llm-trader data {command} --exchange binance --symbols BTCUSDT"
        shown = typed(f"{line} --store {tmp_path}")
        assert "the store holds data of bybit, not of binance" in shown.err
    assert exchange.asked == []
    assert rows_of(tmp_path) == before


def _command(venue: str, store: Path, days: int) -> list[str]:
    options = ["--exchange", venue, "--start", str(days), "--store", str(store)]
    return [console_script("llm-trader"), *LINE.split()[1:], *options]


def _started(venue: str, store: Path, days: int) -> subprocess.Popen[str]:
    return Forked(
        _command(venue, store, days),
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
