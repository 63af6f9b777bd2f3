"""`llm-trader data accept-jump`, and how the import and the check name jumps and frozen feeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from llm_trader.market.store import MarketStore
from llm_trader.timeframe import DAY_MS, M5, iso8601
from tests.cli.conftest import Typed, Typing
from tests.cli.corridor import AT_MS, END_MS, START_MS, Corridor, copied

PRICES = ("open", "high", "low", "close")
ROWS = 600
JUMP_ROW = 300
JUMP = iso8601(START_MS + JUMP_ROW * M5.ms)


def candles(corridor: Corridor, rows: int = ROWS) -> pl.DataFrame:
    series = corridor.histories["BTCUSDT"].intraday
    columns = {"timestamp_ms": series.open_time_ms[:rows]}
    return pl.DataFrame(columns | {name: values[:rows] for name, values in series.columns()})


def scaled(frame: pl.DataFrame, first: int, last: int, factor: float) -> pl.DataFrame:
    """All prices of some rows multiplied."""
    row = pl.int_range(pl.len())
    inside = (row >= first) & (row < last)
    return frame.with_columns(
        pl.when(inside).then(pl.col(name) * factor).otherwise(pl.col(name)).alias(name)
        for name in PRICES
    )


def redenominated(corridor: Corridor) -> pl.DataFrame:
    return scaled(candles(corridor), JUMP_ROW, ROWS, 0.001)


def imported(typed: Typing, folder: Path, frame: pl.DataFrame, *flags: str) -> Typed:
    path = folder / "okx_linear_BTCUSDT_candles_5m.csv"
    frame.write_csv(path)
    line = f"llm-trader data import {path} --exchange okx --store {folder / 'store'}"
    return typed(line, *flags)


@pytest.fixture
def store(typed: Typing, corridor: Corridor, tmp_path: Path) -> Path:
    """A market that was redenominated 1000:1."""
    assert imported(typed, tmp_path, redenominated(corridor)).code == 0
    return tmp_path / "store"


def test_an_import_warns_of_a_jump_with_both_prices_and_the_way_on(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    frame = redenominated(corridor)
    shown = imported(typed, tmp_path, frame)
    assert shown.code == 0
    (warning,) = [line for line in shown.out.splitlines() if "warning" in line]
    before = frame["close"][JUMP_ROW - 1]
    assert f"jump of BTCUSDT 5m at {JUMP} from {before:.10g} to " in warning
    assert "÷" in warning
    remedy = f"data accept-jump --store {tmp_path / 'store'} --symbol BTCUSDT --at {JUMP}"
    assert remedy in shown.out
    (jump,) = imported(typed, tmp_path, frame, "--json").json["files"][0]["jumps"]
    assert (jump["time"], jump["timeframe"], jump["accepted"]) == (JUMP, "5m", False)
    assert jump["ratio"] == pytest.approx(0.001, rel=0.05)


def test_of_many_jumps_an_import_lists_a_few_and_counts_the_rest(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    frame = candles(corridor)
    for row in range(50, 450, 50):
        frame = scaled(frame, row, row + 1, 10.0)
    shown = imported(typed, tmp_path, frame).out
    assert shown.count("warning: ") == 5
    assert "and 11 more jumps; all are in --json" in shown


def test_a_jump_between_two_files_is_named_by_the_second(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    frame = redenominated(corridor)
    assert "jump of" not in imported(typed, tmp_path, frame[:JUMP_ROW]).out
    # Also across the hole that the files leave between them.
    second = imported(typed, tmp_path, frame[JUMP_ROW + 10 :], "--json").json
    (jump,) = second["files"][0]["jumps"]
    assert jump["time_ms"] == START_MS + (JUMP_ROW + 10) * M5.ms


def test_a_clean_import_says_nothing_of_jumps(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    assert "jump of" not in imported(typed, tmp_path, candles(corridor)).out
    assert "jump of" not in typed("llm-trader data check --store", tmp_path / "store").out


def test_a_check_fails_until_the_jump_is_accepted(typed: Typing, store: Path) -> None:
    failed = typed("llm-trader data check --store", store)
    assert failed.code == 1
    assert f"jump of BTCUSDT 5m at {JUMP}" in failed.out
    assert "jump of BTCUSDT 4h" in failed.out
    report = typed("llm-trader data check --json --store", store).json
    assert [series["problems"] for series in report["series"]] == [[], []]
    remedy = report["remedy"]
    command = remedy[remedy.index("llm-trader data accept-jump") :]

    accepted = typed(command)
    assert accepted.code == 0
    assert "accepted: jump of BTCUSDT 5m" in accepted.out
    assert "accepted: jump of BTCUSDT 4h" in accepted.out
    assert "gets the states beside it with the next rag-ingest" in accepted.out
    passed = typed("llm-trader data check --deep --store", store)
    assert (passed.code, passed.err) == (0, "")
    report = typed("llm-trader data check --json --store", store).json
    assert all(jump["accepted"] for series in report["series"] for jump in series["jumps"])


def test_accepting_again_changes_nothing(typed: Typing, store: Path) -> None:
    line = f"llm-trader data accept-jump --json --symbol btcusdt --at {JUMP} --store"
    first = typed(line, store).json
    assert typed(line, store).json == first
    assert {jump["timeframe"] for jump in first} == {"5m", "4h"}


def test_any_time_within_the_candle_says_which_jump(typed: Typing, store: Path) -> None:
    at = iso8601(START_MS + JUMP_ROW * M5.ms + 299_999)
    ran = typed(f"llm-trader data accept-jump --symbols BTCUSDT --at {at} --store", store)
    assert ran.code == 0
    assert JUMP in ran.out


def test_a_time_without_a_jump_is_refused_with_those_there_are(typed: Typing, store: Path) -> None:
    ran = typed("llm-trader data accept-jump --symbol BTCUSDT --at 2025-01-01 --store", store)
    assert (ran.code, ran.out) == (2, "")
    assert "BTCUSDT has no jump at 2025-01-01T00:00:00Z; it has jumps at" in ran.err
    assert JUMP in ran.err
    assert typed("llm-trader data check --store", store).code == 1


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("", "say which jump with --symbol and --at, or see all with --list"),
        ("--symbol BTCUSDT", "say which jump with --symbol and --at"),
        ("--symbol ETHUSDT --at 2025-01-01", "no data for symbol 'ETHUSDT'; available: BTCUSDT"),
        ("--symbol BTCUSDT --at yesterday", "is not RFC 3339"),
        ("--list --at 2025-01-01", "either --list or --at"),
        ("--list --symbol ETHUSDT", "no data for symbol 'ETHUSDT'; available: BTCUSDT"),
    ],
)
def test_what_names_no_jump_is_refused(typed: Typing, store: Path, flags: str, told: str) -> None:
    ran = typed(f"llm-trader data accept-jump {flags} --store", store)
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err


def test_an_acceptance_can_be_taken_back(typed: Typing, store: Path) -> None:
    line = f"llm-trader data accept-jump --symbol BTCUSDT --at {JUMP} --store {store}"
    refused = typed(line, "--withdraw")
    assert (refused.code, refused.out) == (2, "")
    assert f"no jump of BTCUSDT is accepted at {JUMP}; accepted is nothing" in refused.err
    assert typed(line).code == 0
    withdrawn = typed(line, "--withdraw")
    assert withdrawn.code == 0
    assert withdrawn.out.count("no longer accepted: jump of BTCUSDT") == 2
    assert "loses the states that cross it with the next rag-ingest" in withdrawn.out
    assert typed("llm-trader data check --store", store).code == 1
    assert typed(line).code == 0  # and once more


def test_an_ingestion_says_what_a_jump_costs_until_it_is_accepted(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    store, index = copied(corridor.store, tmp_path / "store"), tmp_path / "index"
    jump_ms = AT_MS - 5 * DAY_MS
    candles = corridor.histories["BTCUSDT"].intraday.between(jump_ms, jump_ms + M5.ms)
    tick = {name: getattr(candles, name) * 10 for name in PRICES}
    with MarketStore.open(store, write=True) as opened:
        opened.write("BTCUSDT", replace(candles, **tick), "tick", written_at_ms=END_MS)

    line = f"rag-ingest --symbol BTCUSDT --start 13 --store {store} --index {index}"
    first = typed(line)
    assert first.code == 0
    told = "a jump of more than ×3 in the 24h after it; if it is real: llm-trader data accept-jump"
    assert told in " ".join(first.out.split())
    refused = typed(line, "--json").json[0]["refused"]
    assert refused[told] == 96

    for time_ms in (jump_ms, jump_ms + M5.ms):
        accept = f"llm-trader data accept-jump --symbol BTCUSDT --at {iso8601(time_ms)} --store"
        assert typed(accept, store).code == 0
    second = typed(line, "--json").json[0]
    assert told not in second["refused"]
    assert second["added"] >= 96


def test_a_list_says_what_is_accepted(typed: Typing, store: Path) -> None:
    line = "llm-trader data accept-jump --list --store"
    before = typed(line, store)
    assert before.code == 0
    assert before.out.count("not accepted") == 2
    typed(f"llm-trader data accept-jump --symbol BTCUSDT --at {JUMP} --store", store)
    assert [jump["accepted"] for jump in typed(line, store, "--json").json] == [True, True]


def test_a_list_of_a_clean_store_is_empty(typed: Typing, corridor: Corridor) -> None:
    ran = typed("llm-trader data accept-jump --list --store", corridor.store)
    assert (ran.code, ran.out.strip()) == (0, "no jumps")


def test_a_folder_without_a_store_is_not_made_one(typed: Typing, tmp_path: Path) -> None:
    line = "llm-trader data accept-jump --symbol BTCUSDT --at 2025-01-01 --store"
    ran = typed(line, tmp_path / "none")
    assert ran.code == 2
    assert not (tmp_path / "none").exists()


def test_a_frozen_feed_is_shown_beside_the_gaps(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    frame = candles(corridor)
    row = pl.int_range(pl.len())
    start, count = 200, 72  # six hours
    kept = pl.when((row >= start) & (row < start + count)).then(start - 1).otherwise(row)
    rows = frame.select(kept.alias("row"))["row"]
    values = [name for name in frame.columns if name != "timestamp_ms"]
    frozen = frame.with_columns(frame[name].gather(rows).alias(name) for name in values)
    assert imported(typed, tmp_path, frozen).code == 0
    store = tmp_path / "store"

    first, last = (iso8601(START_MS + r * M5.ms) for r in (start, start + count))
    told = f"frozen in BTCUSDT 5m: 72 candles repeat the one before, from {first} to {last}"
    for command in ("info", "check"):
        shown = typed(f"llm-trader data {command} --store", store)
        assert shown.code == 0
        assert told in shown.out
        series = typed(f"llm-trader data {command} --json --store", store).json["series"]
        (stretch,) = next(s["frozen"] for s in series if s["timeframe"] == "5m")
        assert (stretch["start"], stretch["end"], stretch["candles"]) == (first, last, 72)
