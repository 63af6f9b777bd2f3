"""Holes that an import reports, and what they cost."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from llm_trader.market import hole_costs
from llm_trader.market.candles import Gap
from llm_trader.market.hole_costs import QUARTER_HOUR_MS, silenced_quarter_hours
from llm_trader.market.store import MarketStore
from llm_trader.snapshot import builder
from llm_trader.snapshot.config import SnapshotConfig
from llm_trader.timeframe import DAY_MS, H4, HORIZONS, M1, M5, Millis
from llm_trader.volatility.model import LONGEST_WINDOW_MS
from tests.market.builders import START_MS, run_of_candles
from tests.market.test_derived_candles import imported, without

DAYS = 40
END_MS = START_MS + DAYS * DAY_MS
PER_DAY = 288


def hole(slot: int, missing: int) -> Gap:
    start_ms = START_MS + slot * M5.ms
    return Gap(start_ms, start_ms + missing * M5.ms, missing)


def test_the_warm_up_is_that_of_snapshots() -> None:
    assert hole_costs.INTRADAY_WARM_UP == builder.INTRADAY_WARM_UP
    assert hole_costs.FOUR_HOUR_WARM_UP == builder.FOUR_HOUR_WARM_UP
    assert hole_costs.VOLATILITY_WARM_UP_MS == LONGEST_WINDOW_MS
    assert SnapshotConfig().max_hole_candles == hole_costs.MAX_HOLE_CANDLES


def test_a_missing_candle_costs_the_states_whose_windows_begin_or_outcomes_end_with_it() -> None:
    # 12:00 of day 10: it closes at 12:05, which is no quarter-hour.
    middle = hole(10 * PER_DAY + 144, 1)
    assert silenced_quarter_hours([middle], M5, [], START_MS, END_MS) == (0, 0, 0)
    # 12:10: it closes at 12:15, the end of four outcomes, and begins five windows.
    last = hole(10 * PER_DAY + 146, 1)
    assert silenced_quarter_hours([last], M5, [], START_MS, END_MS) == (6, 4, 10)


def test_a_long_hole_costs_a_week_of_states() -> None:
    long = hole(10 * PER_DAY, 12)
    without_state, without_outcome, silenced = silenced_quarter_hours(
        [long], M5, [], START_MS, END_MS
    )
    assert without_state == 7 * 96 + 4, "the state at midnight itself has its last candle"
    assert without_outcome == 4 * 4 - 1, "the one at midnight lacks two of its horizons"
    assert silenced == 7 * 96 + 4 + 4 * 4 - 1 - 3


def test_more_than_three_missing_4h_candles_cost_twenty_days_of_states() -> None:
    coarse = [
        Gap(START_MS + DAY_MS, START_MS + DAY_MS + 3 * H4.ms, 3),
        Gap(START_MS + 10 * DAY_MS, START_MS + 10 * DAY_MS + 4 * H4.ms, 4),
    ]
    assert silenced_quarter_hours([], M5, coarse, START_MS, END_MS)[0] == 48 + (4 + 119) * 16


@given(
    st.lists(
        st.tuples(st.integers(0, DAYS * PER_DAY - 1), st.integers(1, 9)), max_size=5, unique=True
    )
)
def test_the_count_equals_a_look_at_each_quarter_hour(slots: list[tuple[int, int]]) -> None:
    holes = [hole(slot, missing) for slot, missing in slots]

    def is_missing(time_ms: Millis) -> bool:
        return any(h.start_ms + M5.ms <= time_ms < h.end_ms + M5.ms for h in holes)

    def has_no_state(time_ms: Millis) -> bool:
        is_cold = any(
            h.missing > 3 and h.start_ms + M5.ms <= time_ms < h.end_ms + 7 * DAY_MS for h in holes
        )
        windows_ms = (0, *HORIZONS.values(), 7 * DAY_MS)
        return is_cold or any(is_missing(time_ms - w) for w in windows_ms)

    def has_no_outcome(time_ms: Millis) -> bool:
        return any(is_missing(time_ms + h) for h in HORIZONS.values())

    times = range(START_MS, END_MS, QUARTER_HOUR_MS)
    no_state, no_outcome = map(has_no_state, times), map(has_no_outcome, times)
    pairs = list(zip(no_state, no_outcome, strict=True))
    assert silenced_quarter_hours(holes, M5, [], START_MS, END_MS) == (
        sum(a for a, _ in pairs),
        sum(b for _, b in pairs),
        sum(a or b for a, b in pairs),
    )


def test_an_import_reports_the_holes_of_its_fine_series(store: MarketStore, folder: Path) -> None:
    fine = run_of_candles(DAYS * PER_DAY, M5)

    assert imported(store, folder, fine).holes == []
    with MarketStore.open(folder / "other", write=True, exchange="bybit") as other:
        (folder / "files").mkdir()
        holey = without(fine, [5000, *range(7000, 7003)])
        (report,) = imported(other, folder / "files", holey).holes

    assert (report.symbol, report.timeframe) == ("BTCUSDT", "5m")
    assert (report.holes, report.missing, report.longest) == (2, 4, 3)
    assert report.quarter_hours == DAYS * 96
    assert (report.without_state, report.without_outcome, report.silenced) == (12, 8, 20)


def test_holes_of_1m_candles_cost_what_those_of_3m_candles_do(
    store: MarketStore, folder: Path
) -> None:
    # The 3m candle from minute 5007 to 5010 cannot be built; it would close at a quarter-hour.
    (report,) = imported(store, folder, without(run_of_candles(7 * 1440, M1), [5008])).holes

    assert (report.timeframe, report.missing) == ("1m", 1)
    assert (report.without_state, report.without_outcome) == (5, 4)
