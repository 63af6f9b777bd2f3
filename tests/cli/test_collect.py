"""`llm-trader data collect`, typed, against the fake exchange at the pace of real time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import DAY_MS, M3
from tests.cli.conftest import Typing
from tests.cli.corridor import console_script, until
from tests.exchange.clock import SimulatedClock
from tests.exchange.listings import listing_of
from tests.exchange.server import FakeExchange
from tests.processes import Forked

pytest.importorskip("ccxt")

LINE = "llm-trader data collect --exchange bybit --symbols"


@pytest.fixture(scope="module")
def served() -> Iterator[FakeExchange]:
    """A market of now, as the command line has the clock of this machine."""
    now_ms = round(time.time() * 1000)
    start_ms = now_ms // DAY_MS * DAY_MS - 3 * DAY_MS
    listings = [listing_of(simulate(s, start_ms=start_ms, days=6, seed=4)) for s in ("BTCUSDT",)]
    listings.append(
        listing_of(
            simulate("OLDUSDT", start_ms=start_ms, days=6, seed=5), ended_ms=start_ms + DAY_MS
        )
    )
    with FakeExchange(listings, SimulatedClock.starting(now_ms)) as running:
        yield running


@pytest.fixture
def exchange(served: FakeExchange, monkeypatch: pytest.MonkeyPatch) -> FakeExchange:
    for name, value in served.environ(streams=True).items():
        monkeypatch.setenv(name, value)
    return served


def test_it_collects_until_sigterm_and_refuses_a_second_one(
    exchange: FakeExchange, typed: Typing, tmp_path: Path
) -> None:
    store, log = tmp_path / "store", tmp_path / "log.txt"
    arguments = ["--start", "1", "--store", str(store), "--index", str(tmp_path / "index")]
    line = [console_script("llm-trader"), *f"{LINE} btc-usdt,OLDUSDT --json".split()[1:]]
    with (
        log.open("w") as errors,
        Forked(
            [*line, *arguments], env=os.environ, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            assert until(lambda: '"collecting"' in log.read_text(), seconds=60), log.read_text()
            second = typed(f"{LINE} BTCUSDT --store {store}")
            assert second.code == 2
            assert f"process {process.pid} is writing to {store}" in second.err
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0, log.read_text()
    numbers = json.loads(out.splitlines()[-1])
    assert numbers["exchange"] == "bybit"
    assert {age["series"] for age in numbers["series"]} == {
        "candles_3m", "candles_4h", "funding", "open_interest",
    }  # fmt: skip
    assert '"delisted"' in log.read_text()
    with MarketStore.open(store) as opened:
        assert opened.symbols() == ["BTCUSDT"]
        assert len(opened.candles("BTCUSDT", M3)) >= 478


def test_what_is_wrong_is_said_with_the_remedy(
    exchange: FakeExchange, typed: Typing, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    cases = {
        f"{LINE} BTCUSDT --timeframes 7m": "bybit has no candles of 7m; choose of 1m, 3m",
        f"{LINE} BTCUSD": "write symbols like BTCUSDT",
        f"{LINE} OLDUSDT": "bybit does not trade OLDUSDT any more",
        f"{LINE} BTCUSDT --start yesterday": "yesterday",
        f"{LINE} ,": "names no symbol",
        f"{LINE} BTCUSDT --index {store}": "store",
    }
    for line, message in cases.items():
        shown = typed(f"{line} --store {store}")
        assert shown.code != 0, line
        assert message in shown.err, (line, shown.err)
        assert not store.exists()


def test_without_the_extra_it_says_how_to_install_it(
    typed: Typing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ccxt.async_support", None)
    shown = typed(f"{LINE} BTCUSDT --store {tmp_path / 'store'}")
    assert shown.code != 0
    assert "pip install 'llm-trader-rag[exchange]'" in shown.err
