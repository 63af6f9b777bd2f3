"""What an ingestion that failed leaves behind: no index, or one that any store may still fill."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from llm_trader.market.store import MarketStore
from llm_trader.timeframe import M5
from tests.cli.conftest import Typing
from tests.cli.corridor import END_MS, Corridor


def store_of_binance(corridor: Corridor, folder: Path) -> Path:
    """The first two days of candles, under the name of an exchange that they are not from."""
    candles = corridor.histories["BTCUSDT"].intraday.rows(slice(0, 576))
    with MarketStore.open(folder, write=True, exchange="binance") as store:
        store.write("BTCUSDT", candles, "test", written_at_ms=END_MS)
    return folder


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--symbol XRPUSDT", "no data for symbol 'XRPUSDT'"),
        ("--interval 12", "the interval must be a multiple of the 5m candles"),
        ("--intraday 3m", "the store has no 3m candles of BTCUSDT"),
    ],
)
def test_a_refused_ingestion_makes_no_index(
    typed: Typing, corridor: Corridor, tmp_path: Path, flags: str, told: str
) -> None:
    line = "rag-ingest --start 2025-02-01 --end 2025-02-02 --intraday 5m --symbol BTCUSDT"
    ran = typed(f"{line} {flags} --store {corridor.store} --index", tmp_path / "index")
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err
    assert not (tmp_path / "index").exists()


def test_an_ingestion_that_added_nothing_leaves_the_index_to_any_exchange(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    # The file was imported under the wrong --exchange; the right one goes to a new store.
    path = tmp_path / "candles.csv"
    candles = corridor.histories["BTCUSDT"].intraday
    columns = {"timestamp_ms": candles.open_time_ms[: 86_400_000 // M5.ms]}
    columns |= {name: values[: len(columns["timestamp_ms"])] for name, values in candles.columns()}
    pl.DataFrame(columns).write_csv(path)
    wrong, index = tmp_path / "wrong", tmp_path / "index"
    line = f"llm-trader data import {path} --symbol BTCUSDT --kind candles --interval 5m"
    assert typed(f"{line} --exchange binance --store {wrong}").code == 0
    assert typed(f"rag-ingest --store {wrong} --index {index}").code == 1

    ran = typed(f"rag-ingest --start 2 --json --store {corridor.store} --index {index}")
    assert (ran.code, ran.err) == (0, "")
    assert all(report["added"] for report in ran.json)
    assert "simulated" in typed(f"llm-trader index info --index {index}").out


def test_an_index_that_holds_states_stays_with_its_exchange(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    assert typed(f"rag-ingest --start 2 --store {corridor.store} --index {index}").code == 0
    other = store_of_binance(corridor, tmp_path / "binance")
    ran = typed(f"rag-ingest --store {other} --index {index}")
    assert ran.code == 2
    assert "exchange is simulated, not binance" in ran.err
