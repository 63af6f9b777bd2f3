"""`rag-ingest`, also `llm-trader ingest`: ranges, repeats, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_trader.cli import options
from llm_trader.timeframe import DAY_MS, HOUR_MS, iso8601
from tests.cli.conftest import Typing
from tests.cli.corridor import DAYS, END_MS, POINTS, START_MS, SYMBOLS, Corridor
from tests.market.processes import hear, running

NOW_MS = END_MS + HOUR_MS


@pytest.fixture(autouse=True)
def _an_hour_after_the_last_candle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "now_ms", lambda: NOW_MS)


def paths(corridor: Corridor, index: Path) -> str:
    return f"--store {corridor.store} --index {index}"


def test_a_second_run_adds_nothing(typed: Typing, corridor: Corridor, tmp_path: Path) -> None:
    line = f"rag-ingest --symbols btcusdt,ETHUSDT --start 10 --end now {paths(corridor, tmp_path)}"
    first, second = typed(line + " --json"), typed(line + " --json")
    assert (first.code, second.code) == (0, 0)
    assert [report["symbol"] for report in first.json] == list(SYMBOLS)
    for once, again in zip(first.json, second.json, strict=True):
        # Ten days until an hour after the last candle, of which the last 24 h are unresolved.
        assert once["requested"] == 961
        assert once["outside_stored_data"] == 4
        assert once["added"] == again["already_there"] == 961 - 4 - 96
        assert once["refused"] == {"outcome not known yet": 96}
        assert (once["already_there"], again["added"]) == (0, 0)


def test_a_table_tells_what_was_added_and_what_was_not(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    shown = typed(f"llm-trader ingest --start {DAYS + 1} {paths(corridor, tmp_path)}")
    assert shown.code == 0
    assert shown.out.startswith(f"States in {tmp_path}\n")
    for symbol in SYMBOLS:
        (line,) = [li for li in shown.out.splitlines() if li.startswith(f"{symbol} ")]
        assert line.split()[-2:] == [str(POINTS), "0"]
        assert f"{symbol}: 96 refused, outcome not known yet" in shown.out
    assert "fewer than 120 4h candles before it without a long hole or jump" in shown.out


def test_days_ago_and_the_same_rfc_3339_time_ask_for_the_same(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    where = paths(corridor, tmp_path) + " --symbols BTCUSDT --json"
    by_days = typed(f"rag-ingest -s 2.5 -e now {where}").json
    start = iso8601(NOW_MS - 5 * DAY_MS // 2)
    by_time = typed(f"rag-ingest --start {start} --end {iso8601(NOW_MS)} {where}").json
    assert by_days[0]["requested"] == by_time[0]["requested"] == 241
    assert by_time[0]["already_there"] == by_days[0]["added"]


def test_an_offset_is_understood(typed: Typing, corridor: Corridor, tmp_path: Path) -> None:
    line = "rag-ingest -s 2025-02-01T01:00:00+01:00 -e 2025-02-01T00:00:00Z --json "
    report = typed(line + paths(corridor, tmp_path)).json
    assert [one["added"] for one in report] == [1, 1]


def test_an_hourly_interval_takes_every_fourth_state(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    line = "rag-ingest -i 60 -s 2025-02-01T00:00:00Z -e 2025-02-02T00:00:00Z --json "
    assert typed(line + paths(corridor, tmp_path)).json[0]["added"] == 25


def test_the_default_range_follows_the_data_however_old_it_is(
    typed: Typing, corridor: Corridor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "now_ms", lambda: END_MS + 400 * DAY_MS)
    ran = typed(f"rag-ingest --start 10 --json {paths(corridor, tmp_path)}")
    assert [report["added"] for report in ran.json] == [10 * 96 + 1 - 96] * 2
    assert ran.code == 0


@pytest.mark.parametrize("times", ["--start 90 --end now", "--start 2027-01-01 --end 2027-02-01"])
def test_a_range_without_data_fails_and_names_the_newest_time(
    typed: Typing,
    corridor: Corridor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    times: str,
) -> None:
    monkeypatch.setattr(options, "now_ms", lambda: END_MS + 400 * DAY_MS)
    ran = typed(f"rag-ingest {times} {paths(corridor, tmp_path)}")
    assert ran.code == 1
    shown = " ".join(ran.out.split())
    assert "no state was added: the store holds nothing from " in shown
    assert f"its newest candle closed at {iso8601(END_MS)}; leave --end out" in shown


def test_a_range_of_refused_states_fails_with_the_reasons(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    ran = typed(f"rag-ingest -s 2025-01-01 -e 2025-01-05 {paths(corridor, tmp_path)}")
    assert ran.code == 1
    assert "fewer than 120 4h candles before it without a long hole or jump" in ran.out
    assert "no state was added: all were refused, for the reasons above" in ran.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--start 2025-02-01T00:00:00", "has no offset; for UTC write 2025-02-01T00:00:00Z"),
        ("--end 2025-02", "time '2025-02' is not RFC 3339"),
        ("--start noon", "time 'noon' is not RFC 3339, such as 2026-03-20T12:00:00Z"),
        ("--start -5", "time '-5' is not RFC 3339"),
        ("--start now", "time 'now' is not RFC 3339"),
        (
            "--start 2025-02-01 --end 2025-01-20",
            "--start (2025-02-01T00:00:00Z) lies after --end (2025-01-20T00:00:00Z)",
        ),
        ("--symbols DOGEUSDT", "no data for symbol 'DOGEUSDT'; available: BTCUSDT, ETHUSDT"),
        ("--symbols BTCUSDT,DOGEUSDT", "no data for symbol 'DOGEUSDT'"),
        ("--symbols doge/usdt:usdt", "no data for symbol 'DOGEUSDT'"),
        ("--interval 7", "snapshot.interval_minutes = 7 should divide a day"),
        ("--interval 1", "the interval must be a multiple of the 5m candles, not 1m"),
        ("--intraday 3m", "the store has no 3m candles of BTCUSDT"),
        ("--intraday 2m", "should be 'auto', '1m', '3m' or '5m' (from the command line)"),
        ("--log-level loud", "logging.level = 'loud' should be"),
    ],
)
def test_what_cannot_be_ingested_is_refused_in_words(
    typed: Typing, corridor: Corridor, tmp_path: Path, arguments: str, told: str
) -> None:
    ran = typed(f"rag-ingest {arguments} {paths(corridor, tmp_path)}")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert told in ran.err


def test_a_missing_store_is_refused_with_the_command_that_makes_one(
    typed: Typing, tmp_path: Path
) -> None:
    ran = typed(f"rag-ingest --store {tmp_path / 'none'} --index {tmp_path / 'index'}")
    assert ran.code == 2
    assert f"llm-trader data import <folder> --store {tmp_path / 'none'}" in ran.err
    assert not (tmp_path / "index").exists()


def test_an_index_of_other_candles_is_not_mixed_but_refused_with_a_remedy(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    store = tmp_path / "simulated-3m"
    typed(f"llm-trader data simulate --days 25 --symbols BTCUSDT --store {store}")
    ran = typed(f"rag-ingest --start 2025-01-01T00:00:00Z --store {store} --index {corridor.index}")
    assert ran.code == 2
    assert "feature_version is v2_5m4h, not v2_3m4h" in ran.err
    assert "ingest into a new folder with: rag-ingest --index NEW_FOLDER" in ran.err


def test_an_index_that_somebody_writes_to_is_locked(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    program = """
from llm_trader.storage.writer_lock import WriterLock
lock = WriterLock(path)
say("locked")
wait()
"""
    with running(program, tmp_path) as writer:
        assert hear(writer) == "locked"
        ran = typed(f"rag-ingest --start 3 {paths(corridor, tmp_path)}")
    assert ran.code == 2
    assert f"process {writer.pid} is writing to {tmp_path}; wait for it, or stop it" in ran.err


def test_settings_come_from_a_file_and_a_misspelt_one_is_suggested(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    config = tmp_path / "my.toml"
    config.write_text(f'[market]\nstore = "{corridor.store}"\n[index]\npath = "{tmp_path / "i"}"\n')
    line = f"rag-ingest --start 2 --json --config {config}"
    assert typed(line).json[0]["added"] == 2 * 96 + 1 - 96
    config.write_text("[snapshot]\nintervall_minutes = 15\n[markt]\nstore = 'x'\n")
    ran = typed(line)
    assert ran.code == 2
    assert "unknown setting snapshot.intervall_minutes" in ran.err
    assert "did you mean snapshot.interval_minutes?" in ran.err
    assert "did you mean market?" in ran.err
    assert str(config) in ran.err


def test_a_misspelt_environment_variable_is_suggested(
    typed: Typing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_TRADER_INDEX_PATH", "var/index")
    ran = typed("rag-ingest")
    assert ran.code == 2
    assert "unknown setting LLM_TRADER_INDEX_PATH; did you mean LLM_TRADER_INDEX__PATH?" in ran.err


def test_the_range_of_the_whole_store_gives_every_point(
    typed: Typing, corridor: Corridor, tmp_path: Path
) -> None:
    line = f"rag-ingest --start {iso8601(START_MS)} --symbols ETHUSDT --json "
    (report,) = typed(line + paths(corridor, tmp_path)).json
    assert (report["symbol"], report["added"]) == ("ETHUSDT", POINTS)
    assert report["requested"] == report["outside_stored_data"] + report["added"] + sum(
        report["refused"].values()
    )
