"""Missing is missing: a gap makes what depends on it unknown, counted with its reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_trader.arrays import Times
from llm_trader.errors import InvalidInputError
from llm_trader.market.candles import CandleSeries
from llm_trader.market.history import MarketHistory
from llm_trader.market.samples import FundingSeries, OpenInterestSeries
from llm_trader.snapshot import builder
from llm_trader.snapshot.builder import SnapshotRules
from llm_trader.snapshot.model import EXPECTED_VOLATILITY, REFUSALS, SCALARS, SERIES
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, H4, HOUR_MS, M3, M5, MINUTE_MS, Millis, Timeframe
from tests.market.builders import EMPTY_FUNDING, EMPTY_OPEN_INTEREST, START_MS, no_candles
from tests.snapshot.histories import grid, same_snapshots, simulated, with_holes, without

NO_CANDLE = "no candle closed at its time"
NOT_300 = "fewer than 300 intraday candles before it without a long hole or jump"
NOT_A_DAY = REFUSALS["price_change_24h"]
NOT_A_WEEK = REFUSALS["expected_volatility_15m"]
NOT_120 = "fewer than 120 4h candles before it without a long hole or jump"
NO_INTEREST = "no fresh open interest"
NO_MEAN_INTEREST = "too few samples of open interest in the last 24h"
NO_FUNDING = "no fresh funding rate"

# Holes in which one candle is too many.
NO_HOLES = SnapshotRules(max_hole_candles=0)

INTRADAY = (
    *("rsi_7", "rsi_14", "macd", "ema_20", "price_slope", "ema_20_slope", "macd_slope"),
    *("rsi_7_slope", "rsi_14_slope", "price_change_1h", "price_change_4h"),
    *("realized_volatility_1h", "realized_volatility_4h"),
)
INTRADAY_SERIES = ("mid_prices", "ema_20_values", "macd_values", "rsi_7_values", "rsi_14_values")
DAY = ("price_change_24h", "realized_volatility_24h", "volume_ratio")
WEEK = tuple(EXPECTED_VOLATILITY.values())
FOUR_HOUR = (
    *("ema_20_4h", "ema_50_4h", "atr_3_4h", "atr_14_4h", "macd_4h", "rsi_14_4h"),
    *("current_volume_4h", "avg_volume_4h", "missing_candles_4h"),
    *("ema_ratio", "rsi_14_4h_slope", "macd_4h_slope"),
)
FOUR_HOUR_SERIES = ("macd_4h_values", "rsi_14_4h_values")
INTEREST = ("open_interest_latest", "open_interest_avg_24h", "oi_delta_pct")
DAYS = 26

holes = st.lists(st.tuples(st.integers(1, 5 * 288), st.integers(1, 30)), max_size=3)


def build_snapshots(history: MarketHistory, times: Times) -> SnapshotTable:
    return builder.build_snapshots(history, times, NO_HOLES)


def candles_behind(candles: CandleSeries, times: Times) -> list[int]:
    """How many gapless candles end with the one that closed last before each time."""
    length: dict[Millis, int] = {}
    for time in candles.open_time_ms.tolist():
        length[time] = length.get(time - candles.timeframe.ms, 0) + 1
    last_open = (t - t % candles.timeframe.ms - candles.timeframe.ms for t in times.tolist())
    return [length.get(time, 0) for time in last_open]


def known(table: SnapshotTable, name: str) -> list[bool]:
    if name in SCALARS:
        return np.isfinite(table.column(name)).tolist()
    return np.isfinite(table.series[SERIES.index(name)]).all(axis=1).tolist()


def is_all_or_nothing(table: SnapshotTable) -> bool:
    """A series of ten points is known whole or not at all, and nothing is infinite."""
    unknown = np.isnan(table.series)
    whole = unknown.all(axis=2) == unknown.any(axis=2)
    return bool(
        whole.all() and not np.isinf(table.series).any() and not np.isinf(table.scalars).any()
    )


@given(st.sampled_from([M3, M5]), holes)
@example(M3, [(4, 1)])  # then a snapshot has exactly 300, and one exactly 480, candles behind it
@example(M5, [(2, 1)])
def test_after_a_gap_intraday_fields_are_unknown_for_300_candles(
    timeframe: Timeframe, gaps: list[tuple[int, int]]
) -> None:
    whole = simulated(DAYS, timeframe)
    before = len(whole.intraday) - 5 * DAY_MS // timeframe.ms
    intraday = without(whole.intraday, [(before + first, length) for first, length in gaps])
    times = grid(whole, 21)

    table = build_snapshots(replace(whole, intraday=intraday), times)

    behind = candles_behind(intraday, times)
    day = DAY_MS // timeframe.ms
    assert known(table, "price") == [count > 0 for count in behind]
    for name in INTRADAY + INTRADAY_SERIES:
        assert known(table, name) == [count >= 300 for count in behind], name
    for name in DAY:
        assert known(table, name) == [count >= max(300, day + 1) for count in behind], name
    for name in WEEK:
        assert known(table, name) == [count > 7 * day for count in behind], name
    assert known(table, "macd_4h_slope") == known(table, "price")  # relative to the price
    for name in (*FOUR_HOUR[:-1], *FOUR_HOUR_SERIES, *INTEREST, "funding_rate", "hour_of_day"):
        assert all(known(table, name)), name
    assert is_all_or_nothing(table)
    needed = {NO_CANDLE: 1, NOT_300: 300, NOT_A_DAY: day + 1, NOT_A_WEEK: 7 * day + 1}
    why = (
        next((reason for reason, length in needed.items() if count < length), None)
        for count in behind
    )
    assert table.refusals() == Counter(reason for reason in why if reason)


@given(st.integers(1, 3 * 288), st.sampled_from([M3, M5]))
def test_what_lies_before_a_gap_has_no_part_in_what_comes_after_it(
    row: int, timeframe: Timeframe
) -> None:
    whole = simulated(DAYS, timeframe)
    first = len(whole.intraday) - 5 * DAY_MS // timeframe.ms + row
    times = grid(whole, 21)
    times = times[times > whole.intraday.open_time_ms[first]]

    gapped = replace(whole, intraday=without(whole.intraday, [(first, 1)]))
    begun = replace(whole, intraday=whole.intraday.rows(slice(first + 1, None)))

    after_a_gap, from_the_start = build_snapshots(gapped, times), build_snapshots(begun, times)
    assert same_snapshots(after_a_gap, from_the_start)
    assert after_a_gap.complete().any()


@given(st.integers(1, 30 * 6))
def test_what_lies_before_a_4h_gap_has_no_part_in_what_comes_after_it(row: int) -> None:
    whole = simulated(75)
    first = 10 * 6 + row
    times = grid(whole, 61, H4.ms)

    gapped = replace(whole, four_hour=without(whole.four_hour, [(first, 1)]))
    begun = replace(whole, four_hour=whole.four_hour.rows(slice(first + 1, None)))

    after_a_gap, from_the_start = build_snapshots(gapped, times), build_snapshots(begun, times)
    assert same_snapshots(after_a_gap, from_the_start)
    assert after_a_gap.complete().all()


@given(st.lists(st.tuples(st.integers(0, 70 * 6), st.integers(1, 3)), max_size=2))
@pytest.mark.soak
def test_after_a_gap_4h_fields_are_unknown_for_120_candles(gaps: list[tuple[int, int]]) -> None:
    whole = simulated(75)
    four_hour = without(whole.four_hour, gaps)
    times = grid(whole, 3, H4.ms) + 15 * MINUTE_MS
    times = times[:-1]

    table = build_snapshots(replace(whole, four_hour=four_hour), times)

    behind = candles_behind(four_hour, times)
    for name in FOUR_HOUR + FOUR_HOUR_SERIES:
        assert known(table, name) == [count >= 120 for count in behind], name
    for name in (*INTRADAY, *INTRADAY_SERIES, *DAY, *INTEREST, "funding_rate", "price"):
        assert all(known(table, name)), name
    assert is_all_or_nothing(table)
    cold = sum(count < 120 for count in behind)
    assert table.refusals() == Counter({NOT_120: cold} if cold else {})


@given(st.sets(st.integers(0, 5 * 24 - 1), max_size=30))
def test_a_missed_open_interest_sample_is_unknown_and_not_the_one_before(missed: set[int]) -> None:
    whole = simulated(DAYS)
    kept = np.ones(len(whole.open_interest), dtype=bool)
    kept[[(DAYS - 5) * 24 + hour for hour in missed]] = False
    columns = (whole.open_interest.time_ms, whole.open_interest.open_interest)
    interest = OpenInterestSeries(*(c[kept] for c in (*columns, columns[1])))
    times = grid(whole, 22)

    table = build_snapshots(replace(whole, open_interest=interest), times)

    there = set(interest.time_ms.tolist())
    for name in INTRADAY + DAY + FOUR_HOUR + ("price", "funding_rate"):
        assert all(known(table, name)), name
    # A sample speaks until one minute after the next is due, so that one may come late.
    fresh = [t - t % HOUR_MS in there or (t % HOUR_MS == 0 and t - HOUR_MS in there) for t in times]
    enough = [
        sum(t - t % HOUR_MS - hour * HOUR_MS in there for hour in range(24)) >= 22 for t in times
    ]
    assert known(table, "open_interest_latest") == fresh
    assert known(table, "open_interest_avg_24h") == enough
    assert known(table, "oi_delta_pct") == [a and b for a, b in zip(fresh, enough, strict=True)]
    why = (
        NO_INTEREST if not now else NO_MEAN_INTEREST if not mean else None
        for now, mean in zip(fresh, enough, strict=True)
    )
    assert table.refusals() == Counter(reason for reason in why if reason)


def test_a_change_of_open_interest_that_is_published_once_a_day_is_unknown() -> None:
    whole = simulated(DAYS)
    daily = whole.open_interest.time_ms % DAY_MS == 0
    columns = (values[daily] for _, values in whole.open_interest.columns())
    interest = OpenInterestSeries(whole.open_interest.time_ms[daily], *columns)
    times = grid(whole, 22)

    once_a_day = replace(whole, open_interest=interest, open_interest_interval_ms=DAY_MS)
    table = build_snapshots(once_a_day, times)

    assert all(known(table, "open_interest_latest"))
    assert not any(known(table, "oi_delta_pct"))
    assert table.refusals() == Counter({NO_MEAN_INTEREST: len(times)})


@given(st.sets(st.integers(0, 5 * 3 - 1), max_size=8))
def test_a_missed_settlement_is_unknown_and_not_the_one_before(missed: set[int]) -> None:
    whole = simulated(DAYS)
    kept = np.ones(len(whole.funding), dtype=bool)
    kept[[(DAYS - 5) * 3 + number for number in missed]] = False
    every = 8 * HOUR_MS
    funding = whole.funding
    funding = FundingSeries(funding.time_ms[kept], funding.rate[kept], funding.interval_hours[kept])
    times = grid(whole, 21)[1:-1]

    table = build_snapshots(replace(whole, funding=funding), times)

    there = set(funding.time_ms.tolist())
    fresh = [t - t % every in there or (t % every == 0 and t - every in there) for t in times]
    assert known(table, "funding_rate") == fresh
    assert table.refusals() == Counter({NO_FUNDING: fresh.count(False)} if not all(fresh) else {})


@given(st.integers(0, 2**32))
def test_nothing_is_zero_or_carried_forward_where_it_is_unknown(seed: int) -> None:
    """What is known beside holes is what is known without them."""
    whole = simulated(DAYS)
    times = grid(whole, 0.5)
    times = times[times % HOUR_MS != 0]  # then a sample may be late: the one before still counts
    truth = build_snapshots(whole, times)

    table = build_snapshots(with_holes(whole, seed), times)

    sampled = np.isin(SCALARS, ["open_interest_avg_24h", "oi_delta_pct"])  # means of fewer samples
    recursive = np.isin(SCALARS, [*FOUR_HOUR, *INTRADAY])  # begin anew after the hole
    told = ~np.isnan(table.scalars)
    exact = told & ~(recursive | sampled)[:, None]
    assert not (told & np.isnan(truth.scalars)).any()
    assert np.array_equal(table.scalars[exact], truth.scalars[exact])
    assert not ((table.scalars == 0) & (truth.scalars != 0)).any()
    assert is_all_or_nothing(table)


def test_an_unknown_field_is_none_in_the_record_and_a_known_one_is_not() -> None:
    history = with_holes(simulated(DAYS), 3)
    table = build_snapshots(history, grid(history, 0))

    counts = Counter[bool]()
    for row in range(0, len(table), 11):
        snapshot = table.snapshot(row)
        for name in SCALARS:
            value = table.column(name)[row]
            assert getattr(snapshot, name) == (None if np.isnan(value) else value)
            counts[bool(np.isnan(value))] += 1
        for index, name in enumerate(SERIES):
            points = table.series[index, row]
            assert getattr(snapshot, name) == (None if np.isnan(points).all() else points.tolist())
    assert min(counts[True], counts[False]) > 1000


def test_the_first_missing_field_names_the_reason_and_each_snapshot_is_counted_once() -> None:
    history = with_holes(simulated(DAYS), 5)
    table = build_snapshots(history, grid(history, 0))

    refused = table.refusals()

    assert refused.total() == len(table) - np.isfinite(table.scalars).all(axis=0).sum()
    assert refused[NO_CANDLE] >= 1
    assert refused[NOT_300] >= 99 - 1
    assert refused[NOT_120] > 1000


@pytest.mark.parametrize("missing", ["intraday", "four_hour", "funding", "open_interest"])
def test_a_market_without_one_of_its_series_is_known_but_for_that(missing: str) -> None:
    whole = simulated(DAYS)
    empty = {
        "intraday": no_candles(M5),
        "four_hour": no_candles(H4),
        "funding": EMPTY_FUNDING,
        "open_interest": EMPTY_OPEN_INTEREST,
    }
    reasons = {
        "intraday": NO_CANDLE,
        "four_hour": NOT_120,
        "funding": NO_FUNDING,
        "open_interest": NO_INTEREST,
    }
    fields = {
        "intraday": ("price", "missing_candles", *INTRADAY, *DAY, *WEEK, "macd_4h_slope"),
        "four_hour": FOUR_HOUR,
        "funding": ("funding_rate", "funding_interval_hours"),
        "open_interest": INTEREST,
    }
    times = grid(whole, 24)

    table = build_snapshots(replace(whole, **{missing: empty[missing]}), times)

    unknown = {name for name in SCALARS if not any(known(table, name))}
    assert unknown == set(fields[missing])
    assert all(all(known(table, name)) for name in set(SCALARS) - unknown)
    assert table.refusals() == {reasons[missing]: len(times)}


@pytest.mark.parametrize("days", [-3, DAYS + 5])
def test_times_outside_the_stored_history_are_unknown(days: int) -> None:
    times = START_MS + days * DAY_MS + np.arange(3) * 15 * MINUTE_MS

    table = build_snapshots(simulated(DAYS), times)

    assert table.refusals() == {NO_CANDLE: 3}
    assert [name for name in SCALARS if any(known(table, name))] == ["hour_of_day"]
    assert not np.isfinite(table.series).any()


def test_no_times_give_no_snapshots() -> None:
    table = build_snapshots(simulated(DAYS), np.empty(0, dtype=np.int64))

    assert len(table) == 0
    assert table.refusals() == Counter()
    assert table.complete().tolist() == []


@given(st.integers(1, 4))
def test_a_run_of_very_few_candles_is_no_trouble(length: int) -> None:
    whole = simulated(DAYS)
    last = len(whole.intraday)
    cut = without(whole.intraday, [(0, last - 1000), (last - 100 - length - 3, 3), (last - 100, 3)])
    times = grid(whole, 25)

    table = build_snapshots(replace(whole, intraday=cut), times)

    behind = candles_behind(cut, times)
    assert known(table, "rsi_14") == [count >= 300 for count in behind]
    assert length in candles_behind(cut, cut.open_time_ms + M5.ms)


@pytest.mark.parametrize("step_ms", [0, -1, -15 * MINUTE_MS])
def test_times_that_do_not_increase_are_refused(step_ms: Millis) -> None:
    at = START_MS + 25 * DAY_MS

    with pytest.raises(InvalidInputError, match="times must increase"):
        build_snapshots(simulated(DAYS), np.array([at - HOUR_MS, at, at + step_ms]))


def test_an_hour_without_trades_has_a_volume_ratio_and_a_day_without_has_none() -> None:
    whole = simulated(DAYS)

    def silent_for(hours: int) -> MarketHistory:
        volume = whole.intraday.volume.copy()
        volume[-hours * 12 :] = 0
        return replace(whole, intraday=replace(whole.intraday, volume=volume))

    last = grid(whole, 25)[-1:]
    hour, day = (build_snapshots(silent_for(hours), last) for hours in (1, 24))

    assert hour.column("volume_ratio")[0] == 0
    assert hour.refusals() == {}
    assert np.isnan(day.column("volume_ratio")[0])
    assert day.refusals() == {"no volume in the last 24h": 1}
    assert not same_snapshots(hour, day)
