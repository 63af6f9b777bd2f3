from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_trader.errors import InvalidInputError
from llm_trader.timeframe import (
    DAY_MS,
    H4,
    HOUR_MS,
    M3,
    M5,
    M15,
    MAX_TIME_MS,
    MIN_TIME_MS,
    MINUTE_MS,
    Millis,
    Timeframe,
    iso8601,
    midnight_ms,
    parse_end,
    parse_rfc3339,
    parse_start,
    utc_date,
)

NOON: Millis = 1_774_008_000_000  # 2026-03-20T12:00:00Z

times = st.integers(MIN_TIME_MS, MAX_TIME_MS)
timeframes = st.builds(
    lambda count, unit: Timeframe.parse(f"{count}{unit}"),
    st.integers(1, 9999),
    st.sampled_from("mhd"),
)


@pytest.mark.parametrize(
    ("text", "ms"), [("1m", MINUTE_MS), ("3m", 180_000), ("4h", 4 * HOUR_MS), ("1d", DAY_MS)]
)
def test_a_timeframe_is_a_number_and_a_unit(text: str, ms: Millis):
    assert Timeframe.parse(text) == Timeframe(ms)
    assert str(Timeframe(ms)) == text


@pytest.mark.parametrize("text", ["", "3", "m", "0m", "03m", "-3m", "3M", "3s", "3 m", "3m\n"])
def test_what_is_not_a_timeframe_is_refused_with_an_example(text: str):
    with pytest.raises(InvalidInputError, match="is not like 3m, 4h or 1d"):
        Timeframe.parse(text)


@given(timeframe=timeframes)
def test_a_timeframe_survives_being_written_and_read(timeframe: Timeframe):
    assert Timeframe.parse(str(timeframe)) == timeframe


def test_timeframes_are_ordered_by_length_and_written_in_the_largest_unit():
    assert sorted([H4, M15, M3, M5]) == [M3, M5, M15, H4]
    assert str(Timeframe.parse("60m")) == "1h"
    assert str(Timeframe(1500)) == "1500ms"


@given(timeframe=timeframes, time_ms=times)
def test_floor_is_the_latest_grid_time_at_or_before(timeframe: Timeframe, time_ms: Millis):
    floor = timeframe.floor(time_ms)
    assert floor % timeframe.ms == 0
    assert floor <= time_ms < floor + timeframe.ms
    assert timeframe.floor(floor) == floor


def test_a_time_is_written_with_milliseconds_only_where_there_are_any():
    assert iso8601(NOON) == "2026-03-20T12:00:00Z"
    assert iso8601(NOON + 7) == "2026-03-20T12:00:00.007Z"


@given(time_ms=times)
@example(MIN_TIME_MS)
@example(8_589_976_204_286)
@example(MAX_TIME_MS)
def test_every_time_of_13_digits_survives_being_written_and_read(time_ms: Millis):
    assert parse_rfc3339(iso8601(time_ms)) == time_ms


@given(time_ms=times, other_ms=times)
def test_written_times_of_whole_seconds_sort_as_the_times_do(time_ms: Millis, other_ms: Millis):
    first, second = (ms - ms % 1000 for ms in (time_ms, other_ms))
    assert (iso8601(first) < iso8601(second)) == (first < second)


@given(time_ms=times, minutes=st.integers(-23 * 60, 23 * 60))
def test_an_offset_names_another_clock_and_the_same_moment(time_ms: Millis, minutes: int):
    clock = timedelta(minutes=minutes)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms) + clock
    sign = "-" if minutes < 0 else "+"
    text = f"{moment:%Y-%m-%dT%H:%M:%S.%f}{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    assert parse_rfc3339(text) == time_ms


@pytest.mark.parametrize("text", ["2026-03-20T12:00:00", "2026-03-20 12:00:00.5"])
def test_a_time_without_an_offset_is_refused_and_the_correction_shown_is_accepted(text: str):
    with pytest.raises(InvalidInputError, match="has no offset") as refused:
        parse_rfc3339(text)
    assert parse_rfc3339(refused.value.message.rpartition("write ")[2]) > MIN_TIME_MS


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00Z", "1774008000000"])
def test_what_is_not_a_time_is_refused_with_an_example(text: str):
    with pytest.raises(InvalidInputError, match="2026-03-20T12:00:00Z"):
        parse_rfc3339(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", NOON),
        ("90", NOON - 90 * DAY_MS),
        ("0.5", NOON - 12 * HOUR_MS),
        ("2026-03-19T12:00:00Z", NOON - DAY_MS),
        ("2026-03-20", NOON - 12 * HOUR_MS),
    ],
)
def test_a_start_is_a_number_of_days_before_the_end_or_a_time(text: str, expected: Millis):
    assert parse_start(text, NOON) == expected


def test_a_negative_number_of_days_is_not_a_start():
    with pytest.raises(InvalidInputError):
        parse_start("-1", NOON)


def test_an_end_is_now_or_a_time():
    assert parse_end("now", NOON) == NOON
    assert parse_end("2026-03-19T12:00:00Z", NOON) == NOON - DAY_MS


def test_a_date_means_its_midnight_in_utc():
    assert parse_end("2026-03-20", NOON) == NOON - 12 * HOUR_MS


@given(times)
def test_a_day_begins_at_its_midnight_and_ends_before_the_next(time_ms: int) -> None:
    day = utc_date(time_ms)
    assert midnight_ms(day) == time_ms - time_ms % DAY_MS
    assert iso8601(time_ms).startswith(day.isoformat())
