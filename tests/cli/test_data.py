"""`llm-trader data`: simulate, import, info, and what they say when something is wrong."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from llm_trader.cli import options
from llm_trader.timeframe import M3, M5, parse_rfc3339
from tests.cli.conftest import Typing
from tests.cli.corridor import DAYS, START_MS, SYMBOLS, Corridor
from tests.market.processes import hear, running
from tests.market.test_store import put_raw

DAY_OF_3M = 480
CANDLE = b'{"open":60000,"high":60000,"low":60000,"close":60000,"volume":1}'


def candle_file(corridor: Corridor, folder: Path, name: str, rows: int = 600) -> Path:
    """The first candles of the corridor as a file."""
    candles = corridor.histories["BTCUSDT"].intraday
    columns = {"timestamp_ms": candles.open_time_ms[:rows]}
    columns |= {name: values[:rows] for name, values in candles.columns()}
    folder.mkdir(exist_ok=True)
    path = folder / name
    frame = pl.DataFrame(columns)
    if path.suffix == ".csv":
        frame.write_csv(path)
    else:
        frame.write_parquet(path)
    return path


def test_simulating_writes_a_market_and_shows_its_series(typed: Typing, tmp_path: Path) -> None:
    ran = typed("llm-trader data simulate --days 2 --symbols btcusdt,SOLUSDT", "--store", tmp_path)
    assert ran.code == 0
    for word in ("exchange simulated", "BTCUSDT", "SOLUSDT", "candles 3m", "candles 4h", "funding"):
        assert word in ran.out
    assert "2025-01-02 23:57" in ran.out
    assert "simulation, seed 7" in ran.out


def test_equal_seeds_make_equal_markets_and_simulating_again_changes_nothing(
    typed: Typing, tmp_path: Path
) -> None:
    line = "llm-trader data simulate --days 1 --symbols BTCUSDT --json --store"
    first, again = typed(line, tmp_path / "a").json, typed(line, tmp_path / "a").json
    other = typed(line + f" {tmp_path / 'b'} --seed 8").json

    def rows(described: dict[str, list[dict[str, object]]]) -> list[tuple[object, object]]:
        return [(s["rows"], s["provenance"][0]["rows"]) for s in described["series"]]  # type: ignore[index]

    assert rows(first) == rows(again)
    assert rows(first)[0] == (DAY_OF_3M, DAY_OF_3M)
    assert {s["provenance"][0]["source"] for s in other["series"]} == {"simulation, seed 8"}


def test_a_simulation_can_start_at_a_given_time(typed: Typing, tmp_path: Path) -> None:
    line = "llm-trader data simulate --days 1 --start 2024-06-01T00:00:00+02:00 --json --store"
    series = typed(line, tmp_path).json["series"][0]
    assert series["first"] == "2024-05-31T20:00:00Z"  # the 4h grid


def test_info_describes_every_series_also_as_json(typed: Typing, corridor: Corridor) -> None:
    shown = typed("llm-trader data info --store", corridor.store)
    described = typed("llm-trader data info --json --store", corridor.store)
    assert (shown.code, described.code) == (0, 0)
    assert all(symbol in shown.out for symbol in SYMBOLS)
    assert described.json["exchange"] == "simulated"
    found = {(s["symbol"], s["kind"], s["timeframe"]): s for s in described.json["series"]}
    assert len(found) == 8
    candles = found["ETHUSDT", "candles", "5m"]
    assert (candles["rows"], candles["missing"], candles["gaps"]) == (DAYS * 288, 0, [])
    assert candles["first_ms"] == START_MS
    assert candles["age_seconds"] > 0


def test_info_fits_80_columns_as_two_tables_and_cuts_no_number(
    typed: Typing, corridor: Corridor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = typed("llm-trader data info --store", corridor.store).out.splitlines()
    assert max(map(len, shown[1:])) <= 80  # the first line is the path
    headers = [line.split() for line in shown if line.startswith("symbol ")]
    assert headers == [
        ["symbol", "series", "rows", "first", "last", "missing", "age"],
        ["symbol", "series", "from"],
    ]
    candles = f"BTCUSDT candles 5m {DAYS * 288} 2025-01-01 00:00 2025-03-01 23:55 0"
    assert candles in [" ".join(line.split()[:-1]) for line in shown]


@pytest.mark.parametrize("flag", ["--symbol", "--symbols"])
def test_symbol_and_symbols_both_name_them(
    typed: Typing, corridor: Corridor, tmp_path: Path, flag: str
) -> None:
    simulated = typed(f"llm-trader data simulate --days 1 {flag} SOLUSDT --json --store", tmp_path)
    assert {series["symbol"] for series in simulated.json["series"]} == {"SOLUSDT"}
    path = candle_file(corridor, tmp_path, "export.csv", rows=50)
    line = f"llm-trader data import {path} --exchange bybit --store {tmp_path / 's'} "
    line += f"{flag} SOLUSDT --kind candles --interval 5m --json"
    assert typed(line).json["files"][0]["symbol"] == "SOLUSDT"


@pytest.mark.parametrize("written", ["btcusdt", "BTC-USDT", "BTC/USDT:USDT", "BTC_USDT"])
def test_a_symbol_may_be_written_as_exchanges_and_ccxt_do(
    typed: Typing, corridor: Corridor, tmp_path: Path, written: str
) -> None:
    lines = (
        f"simulate --days 1 --symbols {written} --store {tmp_path / 's'}",
        f"export --symbols {written} --out {tmp_path / 'out'} --store {tmp_path / 's'}",
        f"accept-jump --list --symbol {written} --store {tmp_path / 's'}",
    )
    for line in lines:
        ran = typed(f"llm-trader data {line} --json")
        assert ran.code == 0, ran.err
    assert (tmp_path / "out" / "BTCUSDT").is_dir()
    path = candle_file(corridor, tmp_path, "export.csv", rows=50)
    line = f"llm-trader data import {path} --exchange bybit --store {tmp_path / 'imported'} "
    line += f"--symbol {written} --kind candles --interval 5m --json"
    assert typed(line).json["files"][0]["symbol"] == "BTCUSDT"


def test_a_date_is_its_midnight_utc(typed: Typing, tmp_path: Path) -> None:
    line = "llm-trader data simulate --days 1 --symbol BTCUSDT --start 2024-06-02 --json --store"
    assert typed(line, tmp_path).json["series"][0]["first"] == "2024-06-02T00:00:00Z"


def test_import_info_and_check_tell_of_gaps_and_of_what_was_built_across_them(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    path = candle_file(corridor, tmp_path / "files", "okx_linear_BTCUSDT_candles_5m.parquet")
    frame = pl.read_parquet(path)
    pl.concat([frame[:100], frame[103:200], frame[210:]]).write_parquet(path)
    store = tmp_path / "store"
    ran = typed("llm-trader data import --exchange okx", path, "--store", store)
    assert ran.code == 0
    assert "BTCUSDT 4h: 1 of 11 candles are built from a part of their finer ones" in ran.out
    assert "warning: BTCUSDT 5m: 13 candles missing in 2 holes, the longest of 10;" in ran.out
    assert "of 200 quarter-hours about 148 are lost" in ran.out
    shown = typed("llm-trader data info --store", store).out
    assert "gap in BTCUSDT 5m: 3 candles from 2025-01-01T08:20:00Z" in shown
    assert "BTCUSDT 4h: 1 candles are built from a part of their finer ones, the first" in shown
    series = typed("llm-trader data info --json --store", store).json["series"]
    assert {s["timeframe"]: s["missing"] for s in series} == {"4h": 1, "5m": 13}
    assert {s["timeframe"]: s["incomplete"] for s in series} == {
        "4h": ["2025-01-01T08:00:00Z"],
        "5m": [],
    }
    checked = typed("llm-trader data check --store", store)
    assert checked.code == 0
    assert "BTCUSDT candles 4h: 1 built from a part of their finer candles" in checked.out


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_folder_is_imported_and_4h_candles_are_built(
    typed: Typing, corridor: Corridor, tmp_path: Path, suffix: str
) -> None:
    name = f"bybit_linear_BTCUSDT_candles_5m.{suffix}"
    candle_file(corridor, tmp_path / "files", name)
    (tmp_path / "files" / "README.md").write_text("not data")
    line = f"llm-trader data import {tmp_path / 'files'} --exchange bybit --store {tmp_path / 's'}"
    shown = typed(line)
    assert shown.code == 0
    assert name in shown.out
    assert "600" in shown.out
    assert "BTCUSDT 4h, resampled from" in shown.out
    assert "skipped README.md" in shown.out
    again = typed(line + " --json").json
    assert again["files"][0]["write"] == {"added": 0, "replaced": 0, "unchanged": 600}
    assert again["derived"][0]["rows"] == 600 // 48


def test_columns_and_the_meaning_of_one_file_can_be_named(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    path = candle_file(corridor, tmp_path, "export.csv", rows=50)
    path.write_text(path.read_text().replace("volume", "traded", 1))
    line = f"llm-trader data import {path} --exchange bybit --store {tmp_path / 's'} "
    line += "--symbol BTCUSDT --kind candles --interval 5m --json"
    refused = typed(line)
    assert refused.code == 2
    assert "volume" in refused.err
    assert typed(line + " --map volume=traded").json["files"][0]["write"]["added"] == 50


@pytest.mark.parametrize(
    ("mapping", "told"),
    [
        ("volume", "--map 'volume' is not like timestamp_ms=ts"),
        ("=ts", "is not like timestamp_ms=ts"),
        ("ts=timestamp_ms", "cannot map ts; columns are: close, high"),
    ],
)
def test_a_bad_map_says_how_it_should_look(
    typed: Typing, corridor: Corridor, tmp_path: Path, mapping: str, told: str
) -> None:
    path = candle_file(corridor, tmp_path, "bybit_linear_BTCUSDT_candles_5m.csv", rows=10)
    line = f"llm-trader data import {path} --exchange bybit --store {tmp_path / 's'} --map"
    ran = typed(line, mapping)
    assert ran.code == 2
    assert ran.err.startswith("error: ")
    assert told in ran.err


def test_bad_rows_are_counted_and_nothing_of_the_file_is_written(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    path = candle_file(corridor, tmp_path, "bybit_linear_BTCUSDT_candles_5m.csv", rows=100)
    lines = path.read_text().splitlines()
    lines[7] = ",".join([*lines[7].split(",")[:5], "-3"])
    path.write_text("\n".join(lines))
    ran = typed(f"llm-trader data import {path} --exchange bybit --store {tmp_path / 's'}")
    assert ran.code == 2
    assert "refused, 1 × " in ran.err
    assert "volume" in ran.err
    assert "line 8, 2025-01-01T00:30:00Z" in ran.err
    assert not (tmp_path / "s").exists(), "a failed command leaves no empty store behind"


def test_what_is_not_there_is_refused_with_a_remedy(typed: Typing, tmp_path: Path) -> None:
    ran = typed("llm-trader data info --store", tmp_path / "none")
    assert (ran.code, ran.out) == (2, "")
    assert "create one with: llm-trader data import" in ran.err
    ran = typed(f"llm-trader data import {tmp_path / 'no'} --exchange bybit --store", tmp_path)
    assert ran.code == 2
    assert "does not exist" in ran.err


def test_one_store_holds_one_exchange(typed: Typing, corridor: Corridor, tmp_path: Path) -> None:
    assert typed("llm-trader data simulate --days 1 --store", tmp_path).code == 0
    path = candle_file(corridor, tmp_path / "f", "bybit_linear_BTCUSDT_candles_5m.csv", rows=10)
    ran = typed(f"llm-trader data import {path} --exchange bybit --store {tmp_path}")
    assert ran.code == 2
    assert "holds data of simulated, not of bybit" in ran.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--symbols btc+usdt", "'BTC+USDT' is not 2 to 20 capital letters and digits"),
        ("--symbols ,", "--symbols names no symbol"),
        ("--days 0", "Invalid value for '--days'"),
        ("--days many", "Invalid value for '--days'"),
        ("--seed -1", "seed from 0"),
        ("--start 2025-01-01T00:00:00", "has no offset; for UTC write 2025-01-01T00:00:00Z"),
        ("--start yesterday", "is not RFC 3339, such as"),
    ],
)
def test_a_market_that_cannot_be_simulated_is_refused(
    typed: Typing, tmp_path: Path, arguments: str, told: str
) -> None:
    ran = typed(f"llm-trader data simulate {arguments} --store", tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err
    assert "Traceback" not in ran.err


def test_a_store_that_another_process_has_open_for_writing_can_be_written_to(
    typed: Typing, tmp_path: Path
) -> None:
    program = """
with MarketStore.open(path, write=True, exchange="simulated") as store:
    say("open")
    wait()
"""
    with running(program, tmp_path) as writer:
        assert hear(writer) == "open"
        assert typed("llm-trader data simulate --days 1 --store", tmp_path).code == 0


def test_a_sound_store_passes_the_check(typed: Typing, tmp_path: Path) -> None:
    typed("llm-trader data simulate --days 1 --symbols BTCUSDT --store", tmp_path)
    ran = typed("llm-trader data check --store", tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert "candles 3m" in ran.out
    report = typed("llm-trader data check --json --store", tmp_path).json
    assert [series["problems"] for series in report["series"]] == [[]] * 4
    assert report["remedy"] is None


def test_a_record_that_differs_from_the_rows_fails_the_check_until_it_is_repaired(
    typed: Typing, tmp_path: Path
) -> None:
    typed("llm-trader data simulate --days 1 --symbols BTCUSDT --store", tmp_path)
    too_early_ms = parse_rfc3339("2025-01-01T00:00:00Z") - M3.ms
    put_raw(tmp_path, "candles_3m", {f"BTCUSDT:{too_early_ms}": CANDLE})

    ran = typed("llm-trader data check --store", tmp_path)
    assert ran.code == 1
    assert "BTCUSDT candles 3m: the row count is 481, but the record says 480" in ran.out
    assert f"llm-trader data check --repair --store {tmp_path}" in ran.out
    assert typed("llm-trader data check --json --store", tmp_path).code == 1

    assert typed("llm-trader data check --repair --store", tmp_path).code == 0
    assert typed("llm-trader data check --store", tmp_path).code == 0


def test_the_time_of_writing_is_the_commands_only_use_of_the_clock(
    typed: Typing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "now_ms", lambda: START_MS)
    described = typed("llm-trader data simulate --days 1 --json --store", tmp_path).json
    stamps = {s["written_at_ms"] for series in described["series"] for s in series["provenance"]}
    assert stamps == {START_MS}
    assert {str(M3), str(M5)} & {s["timeframe"] for s in described["series"]} == {"3m"}
