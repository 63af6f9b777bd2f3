"""Removing what is old: the store is then as if it had never been there, also after a kill."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llm_trader.errors import InvalidInputError
from llm_trader.market import retention
from llm_trader.market.absent_spans import Span
from llm_trader.market.candles import CandleSeries
from llm_trader.market.refused_rows import RefusedSpan
from llm_trader.market.resampling import resample_with_holes
from llm_trader.market.samples import FundingSeries, OpenInterestSeries
from llm_trader.market.store import MarketStore
from llm_trader.market.stored_series import candles_of
from llm_trader.timeframe import DAY_MS, H4, HOUR_MS, M3, MINUTE_MS, iso8601
from tests.market.builders import START_MS, candles_at, run_of_candles, same_series
from tests.market.processes import hear, running

SYMBOL, OTHER = "BTCUSDT", "ETHUSDT"
DAYS = 12
CUT_MS = START_MS + 7 * DAY_MS
END_MS = START_MS + DAYS * DAY_MS
AT = END_MS

WHOLE = run_of_candles(DAYS * 480, M3)
FOUR_HOUR = resample_with_holes(WHOLE, H4, 1.0).candles


def with_holes() -> CandleSeries:
    """Twelve days of 3-minute candles with holes, one of them across the cut."""
    times = WHOLE.open_time_ms
    kept = np.random.default_rng(3).random(len(times)) > 0.01
    kept &= (times < CUT_MS - HOUR_MS) | (times >= CUT_MS + HOUR_MS)
    columns = {name: values[kept] for name, values in WHOLE.columns()}
    return CandleSeries.validated(M3, {"open_time_ms": times[kept], **columns})


def funding() -> FundingSeries:
    times = list(range(START_MS, END_MS, 8 * HOUR_MS))
    return FundingSeries.validated(
        {"time_ms": times, "rate": [1e-4] * len(times), "interval_hours": [8.0] * len(times)}
    )


def interest() -> OpenInterestSeries:
    """Hourly at first, later every 5 minutes."""
    times = [*range(START_MS, CUT_MS, HOUR_MS), *range(CUT_MS, CUT_MS + DAY_MS // 4, 5 * MINUTE_MS)]
    amounts = [float(n) for n in range(len(times))]
    return OpenInterestSeries.validated(
        {"time_ms": times, "open_interest": amounts, "open_interest_value": amounts}
    )


def filled(path: Path, from_ms: int = START_MS) -> MarketStore:
    """A store with all kinds of series, of all rows from a time on."""
    store = MarketStore.open(path, write=True, exchange="bybit")
    for symbol in (SYMBOL, OTHER):
        for series in (with_holes(), FOUR_HOUR, funding(), interest()):
            store.write(symbol, series.between(from_ms, None), "feed", written_at_ms=AT)
    return store


@pytest.fixture(autouse=True)
def _many_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "ROWS_PER_PART", 600)


def test_the_store_is_as_if_old_rows_had_never_been_there(tmp_path: Path) -> None:
    with filled(tmp_path / "store") as store, filled(tmp_path / "expected", CUT_MS) as expected:
        planned = store.rows_before(CUT_MS)
        assert store.remove_before(CUT_MS) == planned
        assert {(rows.database, rows.rows) for rows in planned if rows.symbol == SYMBOL} == {
            ("candles_3m", len(with_holes().between(None, CUT_MS))),
            ("candles_4h", 7 * 6),
            ("funding", 7 * 3),
            ("open_interest", 7 * 24),
        }
        for symbol in (SYMBOL, OTHER):
            for timeframe in (M3, H4):
                kept = store.candles(symbol, timeframe)
                assert same_series(kept, expected.candles(symbol, timeframe))
                assert store.gaps(symbol, timeframe) == expected.gaps(symbol, timeframe)
            assert same_series(store.funding(symbol), expected.funding(symbol))
            assert same_series(store.open_interest(symbol), expected.open_interest(symbol))
            assert store.kept_from_ms(symbol) == CUT_MS
        for one, other in zip(store.describe().series, expected.describe().series, strict=True):
            assert (one.rows, one.first, one.gaps) == (other.rows, other.first, other.gaps)
        assert store.check(deep=True).problems == 0
        assert store.remove_before(CUT_MS) == []


def test_a_removal_is_no_change_and_appends_go_on_as_before(tmp_path: Path) -> None:
    with filled(tmp_path / "store") as store:
        mark = store.changes_since(SYMBOL, None).mark
        before = store.symbol_version(SYMBOL)
        store.remove_before(CUT_MS)
        # The samples that are left are closer together, and still the former ones count.
        assert store.open_interest_interval_ms(SYMBOL) == HOUR_MS
        assert store.changes_since(SYMBOL, mark).stretches == {}
        assert store.symbol_version(SYMBOL) != before
        later = candles_at([END_MS, END_MS + M3.ms])
        assert store.write(SYMBOL, later, "feed", written_at_ms=AT).added == 2
        assert store.check(deep=True).problems == 0


def test_a_change_of_removed_rows_is_forgotten_and_one_of_later_rows_is_not(
    tmp_path: Path,
) -> None:
    with filled(tmp_path / "store") as store:
        mark = store.changes_since(SYMBOL, None).mark
        candles = store.candles(SYMBOL, M3, CUT_MS - 2 * DAY_MS, CUT_MS + 2 * DAY_MS)
        altered = replace(candles, volume=candles.volume + 1)
        store.write(SYMBOL, altered, "correction", written_at_ms=AT + 1)
        store.remove_before(CUT_MS)
        (stretch,) = store.changes_since(SYMBOL, mark).stretches["candles_3m"]
        assert stretch.first_ms >= CUT_MS
        assert stretch.last_ms == int(candles.open_time_ms[-1])


def test_a_series_that_ended_long_ago_goes_as_a_whole(tmp_path: Path) -> None:
    with filled(tmp_path / "store") as store:
        old = run_of_candles(480, M3)
        store.write("OLDUSDT", old, "feed", written_at_ms=AT)
        store.remove_before(CUT_MS)
        assert store.symbols() == [SYMBOL, OTHER]
        assert store.gaps("OLDUSDT", M3) == []
        assert store.provenance("OLDUSDT", M3) == []
        listed_anew = run_of_candles(480, M3, start_ms=CUT_MS)
        store.write("OLDUSDT", listed_anew, "another feed", written_at_ms=AT)
        assert [source.source for source in store.provenance("OLDUSDT", M3)] == ["another feed"]
        assert store.check(deep=True).problems == 0


def test_built_candles_and_accepted_jumps_of_removed_rows_are_forgotten(tmp_path: Path) -> None:
    store = MarketStore.open(tmp_path / "store", write=True, exchange="bybit")
    with store:
        coarse = FOUR_HOUR
        incomplete = coarse.open_time_ms[[3, -3]]
        store.write(SYMBOL, coarse, "resampled from 5m", written_at_ms=AT, incomplete_ms=incomplete)
        fine = candles_at([START_MS + n * M3.ms for n in range(DAYS * 480)])
        factor = np.where(fine.open_time_ms < START_MS + 2 * DAY_MS, 1.0, 10.0)
        factor[fine.open_time_ms >= START_MS + 10 * DAY_MS] = 100.0
        prices = {name: getattr(fine, name) * factor for name in ("open", "high", "low", "close")}
        store.write(SYMBOL, replace(fine, **prices), "feed", written_at_ms=AT)
        for days in (2, 10):
            store.accept_jump(SYMBOL, START_MS + days * DAY_MS)
        mark = store.changes_since(SYMBOL, None).mark
        store.remove_before(CUT_MS)
        built = store.built_candles(SYMBOL, H4)
        assert built.spans == ((CUT_MS, END_MS),)
        assert built.incomplete_ms == (int(incomplete[1]),)
        (jump,) = [jump for jump in store.jumps(SYMBOL) if jump.timeframe == "3m"]
        assert (jump.time_ms, jump.accepted) == (START_MS + 10 * DAY_MS, True)
        with pytest.raises(InvalidInputError, match="no jump of BTCUSDT is accepted"):
            store.withdraw_jump(SYMBOL, START_MS + 2 * DAY_MS)
        assert store.changes_since(SYMBOL, mark).stretches == {}


def test_what_was_noted_of_removed_times_is_forgotten(tmp_path: Path) -> None:
    series = candles_of(SYMBOL, M3)
    files = {day: f"daily/klines/{SYMBOL}/3m/{SYMBOL}-3m-{day}.zip" for day in (START_MS, CUT_MS)}
    with filled(tmp_path / "store") as store:
        spans = [Span(START_MS, START_MS + HOUR_MS), Span(CUT_MS - HOUR_MS, CUT_MS + HOUR_MS)]
        refused = [RefusedSpan(time, time + M3.ms, "high below low") for time in (START_MS, END_MS)]
        store.note_answer(series, Span(START_MS, END_MS + DAY_MS), spans, refused)
        for day_ms, path in files.items():
            name = path.replace(str(day_ms), iso8601(day_ms)[:10])
            store.put_note("archive", name, b'{"state":"stored","checked_at_ms":0}')
        store.remove_before(CUT_MS)
        assert store.absent_spans(series) == [Span(CUT_MS, CUT_MS + HOUR_MS)]
        assert store.refused_rows(series) == refused[1:]
        (kept,) = store.notes("archive")
        assert iso8601(CUT_MS)[:10] in kept
        assert store.check(deep=True).problems == 0


def test_rows_that_are_written_again_are_kept_like_others(tmp_path: Path) -> None:
    with filled(tmp_path / "store") as store:
        store.remove_before(CUT_MS)
        later = run_of_candles(20, M3, start_ms=END_MS)
        store.write(SYMBOL, later, "feed", written_at_ms=AT)
        assert store.kept_from_ms(SYMBOL) == CUT_MS
        part = with_holes().between(CUT_MS - 2 * DAY_MS + HOUR_MS, CUT_MS)
        store.write(SYMBOL, part, "feed", written_at_ms=AT)
        assert store.kept_from_ms(SYMBOL) == CUT_MS - DAY_MS
        assert store.kept_from_ms(OTHER) == CUT_MS
        assert store.check(deep=True).problems == 0


def test_only_whole_days_can_be_removed(tmp_path: Path) -> None:
    with filled(tmp_path / "store") as store:
        with pytest.raises(InvalidInputError, match="is no midnight UTC"):
            store.remove_before(CUT_MS + HOUR_MS)
        assert store.rows_before(CUT_MS) != []


REMOVAL = """
from llm_trader.market import retention
from llm_trader.market.candles import CandleSeries
from llm_trader.market.resampling import resample_with_holes
retention.ROWS_PER_PART = 480
from tests.market.test_retention import CUT_MS
with MarketStore.open(path, write=True) as store:
    say("ready")
    wait()
    store.remove_before(CUT_MS)
    say("done")
"""


@pytest.mark.parametrize(
    "after_s", [0.03, *(pytest.param(s, marks=pytest.mark.soak) for s in (0.001, 0.01, 0.06))]
)
def test_a_killed_removal_leaves_a_right_store_and_is_ended_by_the_next(
    tmp_path: Path, after_s: float
) -> None:
    path = tmp_path / "store"
    filled(path).close()
    with running(REMOVAL, path) as process:
        assert hear(process) == "ready"
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with MarketStore.open(path, write=True) as store, filled(tmp_path / "new", CUT_MS) as expected:
        assert store.check(deep=True).problems == 0
        store.remove_before(CUT_MS)
        assert store.check(deep=True).problems == 0
        for symbol in (SYMBOL, OTHER):
            assert same_series(store.candles(symbol, M3), expected.candles(symbol, M3))
