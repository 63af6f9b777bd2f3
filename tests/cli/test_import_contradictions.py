"""Candles that other candles of the store contradict, on real data: refused, named, and mended."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from llm_trader.market.store import MarketStore
from llm_trader.timeframe import DAY_MS, H1, H4, HOUR_MS, M5
from tests.cli.conftest import Typed, Typing
from tests.market.builders import candles_at, run_of_candles

FOLDER = "bybit_5m_2025-09_2026-03"


@pytest.fixture(scope="module")
def files(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first two months of candles, as files under their names."""
    folder = tmp_path_factory.mktemp("files")
    for path in (real_data / FOLDER).glob("bybit_linear_*_candles_*.parquet"):
        table = pl.read_parquet(path)
        until_ms = table["timestamp_ms"].min() + 60 * DAY_MS
        table.filter(pl.col("timestamp_ms") < until_ms).write_parquet(folder / path.name)
    return folder


@pytest.fixture
def fine(files: Path) -> Path:
    return files / "bybit_linear_BTCUSDT_candles_5m.parquet"


@pytest.fixture
def coarse(files: Path) -> Path:
    return files / "bybit_linear_BTCUSDT_candles_4h.parquet"


def shifted(path: Path, folder: Path, shift_ms: int) -> Path:
    folder.mkdir(exist_ok=True)
    copy = folder / path.name
    time = pl.col("timestamp_ms") + shift_ms
    pl.read_parquet(path).with_columns(time).write_parquet(copy)
    return copy


def importing(typed: Typing, path: Path, store: Path, more: str = "") -> Typed:
    return typed(f"llm-trader data import {path} --exchange bybit --store {store} {more}")


WRONG_SHIFTS = {"stamped four hours early": -4 * HOUR_MS, "in UTC+8": 8 * HOUR_MS}


@pytest.mark.parametrize(
    "what", ["stamped four hours early", pytest.param("in UTC+8", marks=pytest.mark.soak)]
)
def test_4h_candles_with_shifted_times_are_refused_with_the_shift_that_mends_them(
    typed: Typing, tmp_path: Path, fine: Path, coarse: Path, what: str
) -> None:
    store = tmp_path / "store"
    shift_ms = WRONG_SHIFTS[what]
    wrong = shifted(coarse, tmp_path / "wrong", shift_ms)
    assert importing(typed, fine, store).code == 0
    with MarketStore.open(store) as opened:
        version = opened.version

    ran = importing(typed, wrong, store)

    assert ran.code == 2
    sign = "+" if shift_ms < 0 else "-"
    for told in (
        wrong.name,
        "4h candle that differs from its 5m candles, of 200 compared with the stored 5m ones",
        "row 1, 2025-09-24T08:00:00Z, close" if shift_ms > 0 else "row 2, 2025-09-24T00:00:00Z",
        " in 4h, ",
        " from 5m",
        f"the two agree with --shift {sign}{abs(shift_ms) // HOUR_MS}h",
        "or remove the file",
    ):
        assert told in ran.err
    with MarketStore.open(store) as opened:
        assert opened.version == version, "nothing of it is written"

    mended = importing(typed, wrong, store, f"--shift {sign}{abs(shift_ms) // HOUR_MS}h")
    assert mended.code == 0
    assert typed("llm-trader data check --store", store).code == 0


def test_5m_candles_that_stored_4h_candles_contradict_are_refused_with_their_rows(
    typed: Typing, tmp_path: Path, fine: Path, coarse: Path
) -> None:
    store = tmp_path / "store"
    wrong = shifted(fine, tmp_path / "wrong", HOUR_MS)
    assert importing(typed, coarse, store).code == 0

    ran = importing(typed, wrong, store)

    assert ran.code == 2
    # The file begins at 01:00, so its candle of 04:00 is the 37th.
    assert "compared with the stored 4h ones (row 37, 2025-09-24T04:00:00Z, open" in ran.err
    assert "the two agree with --shift -1h" in ran.err
    assert importing(typed, wrong, store, "--shift -1h").code == 0


def test_a_wrong_shift_is_told_to_be_left_out(
    typed: Typing, tmp_path: Path, fine: Path, coarse: Path
) -> None:
    store = tmp_path / "store"
    assert importing(typed, fine, store).code == 0
    assert "the two agree without --shift" in importing(typed, coarse, store, "--shift 4h").err


def test_candles_of_another_symbol_are_refused(
    typed: Typing, tmp_path: Path, fine: Path, coarse: Path
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    pl.read_parquet(fine).write_parquet(folder / fine.name)
    ethereum = coarse.with_name(coarse.name.replace("BTC", "ETH"))
    pl.read_parquet(ethereum).write_parquet(folder / coarse.name)

    ran = importing(typed, folder, tmp_path / "store")

    assert ran.code == 2
    assert "is the symbol right" in ran.err
    assert "the two agree" not in ran.err
    with MarketStore.open(tmp_path / "store") as store:
        assert len(store.candles("BTCUSDT", M5)) == 60 * 288, "the finer file comes first and stays"
        assert not len(store.candles("BTCUSDT", H4))


def test_the_check_of_a_store_compares_all_its_timeframes(
    typed: Typing, tmp_path: Path, fine: Path, coarse: Path
) -> None:
    store, wrong = tmp_path / "store", shifted(coarse, tmp_path / "wrong", -4 * HOUR_MS)
    assert importing(typed, wrong, store).code == 0
    # As another program would write them.
    frame = pl.read_parquet(fine)
    candles = candles_at(frame["timestamp_ms"].to_list(), M5)
    with MarketStore.open(store, write=True) as opened:
        opened.write("BTCUSDT", candles, "another program", written_at_ms=0)

    ran = typed("llm-trader data check --store", store)

    assert ran.code == 1
    assert "BTCUSDT candles 4h: 359 of 359 candles differ from their 5m candles (2025-" in ran.out
    assert "import the right candles" in ran.out


def test_a_check_names_each_pair_of_timeframes(typed: Typing, tmp_path: Path) -> None:
    with MarketStore.open(tmp_path, write=True, exchange="bybit") as store:
        for timeframe, seed in ((M5, 1), (H1, 2), (H4, 3)):
            candles = run_of_candles(DAY_MS // timeframe.ms, timeframe, seed=seed)
            store.write("BTCUSDT", candles, "test", written_at_ms=0)

    report = typed("llm-trader data check --json --store", tmp_path).json

    problems = {s["timeframe"]: s["problems"] for s in report["series"]}
    assert {timeframe: len(told) for timeframe, told in problems.items()} == {
        "5m": 0,
        "1h": 1,
        "4h": 2,
    }
    assert "24 of 24 candles differ from their 5m candles" in problems["1h"][0]


def test_single_candles_that_an_exchange_got_wrong_are_accepted(
    typed: Typing, tmp_path: Path, fine: Path, coarse: Path
) -> None:
    frame = pl.read_parquet(coarse)
    high = frame["high"].to_numpy().copy()
    high[[0, -1]] *= 1.01
    other = tmp_path / coarse.name
    frame.with_columns(high=high).write_parquet(other)

    assert importing(typed, fine, tmp_path / "store").code == 0
    assert importing(typed, other, tmp_path / "store").code == 0
    assert typed("llm-trader data check --store", tmp_path / "store").code == 0


def test_one_in_fifty_is_refused_by_import_and_named_by_check(
    typed: Typing, tmp_path: Path, fine: Path, coarse: Path
) -> None:
    frame = pl.read_parquet(coarse)
    close = frame["close"].to_numpy().copy()
    close[::50] = frame["low"].to_numpy()[::50]
    other = tmp_path / coarse.name
    frame.with_columns(close=close).write_parquet(other)
    store = tmp_path / "store"
    assert importing(typed, fine, store).code == 0

    ran = importing(typed, other, store)

    assert ran.code == 2
    assert "row 1, 2025-09-24T00:00:00Z, close" in ran.err
