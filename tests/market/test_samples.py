from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.errors import InvalidDataError, InvalidInputError
from llm_trader.market.samples import FundingSeries, OpenInterestSeries, sampling_interval_ms
from llm_trader.timeframe import HOUR_MS, MINUTE_MS, Millis
from tests.market.builders import START_MS
from tests.market.drawn_series import any_funding, any_open_interest

LATE_MS = MINUTE_MS  # how late a stamp may be before a sample counts as missed

moments = st.lists(st.integers(START_MS - HOUR_MS, START_MS + 300 * HOUR_MS), max_size=20).map(
    lambda found: np.array(found, dtype=np.int64)
)


def last_known(times: Any, values: Any, max_age: Any, as_of: Millis) -> float:
    """A loop over everything published by `as_of`; nothing later is looked at."""
    found = math.nan
    for time, value, age in zip(times, values, max_age, strict=True):
        if time <= as_of:
            found = float(value) if as_of - time <= age else math.nan
    return found


@given(any_funding(), moments)
def test_the_funding_rate_at_a_time_is_the_last_settled_one(
    series: FundingSeries, as_of: Any
) -> None:
    max_age = series.interval_hours * HOUR_MS + LATE_MS

    expected = [last_known(series.time_ms, series.rate, max_age, t) for t in as_of]

    assert np.array_equal(series.rate_at(as_of), expected, equal_nan=True)


@given(any_open_interest(), moments, st.sampled_from([5 * MINUTE_MS, HOUR_MS]))
def test_the_open_interest_at_a_time_is_the_last_published_one(
    series: OpenInterestSeries, as_of: Any, interval: Millis
) -> None:
    max_age = np.full(len(series), interval + LATE_MS)

    expected = [last_known(series.time_ms, series.open_interest, max_age, t) for t in as_of]

    assert np.array_equal(series.latest_at(as_of, interval), expected, equal_nan=True)


@given(any_open_interest(), moments)
def test_a_mean_is_over_the_samples_of_its_window_or_missing(
    series: OpenInterestSeries, as_of: Any
) -> None:
    means = series.mean_over(as_of, 24 * HOUR_MS, HOUR_MS)

    for moment, mean in zip(as_of, means, strict=True):
        inside = (series.time_ms > moment - 24 * HOUR_MS) & (series.time_ms <= moment)
        if inside.sum() >= 0.9 * 24:
            assert mean == pytest.approx(series.open_interest[inside].mean())
        else:
            assert math.isnan(mean)


def sampled_every(interval_ms: Millis, days: int = 10) -> OpenInterestSeries:
    times = START_MS + np.arange(0, days * 24 * HOUR_MS, interval_ms)
    values = 1000 + np.random.default_rng(5).normal(0, 10, len(times)).cumsum()
    return OpenInterestSeries(times, values, np.full(len(times), np.nan))


@pytest.mark.parametrize("minutes", [5, 15, 60, 120, 240])
def test_a_mean_of_samples_every_4_hours_or_more_often_is_that_of_their_day(minutes: int) -> None:
    series = sampled_every(minutes * MINUTE_MS)
    as_of = START_MS + 2 * 24 * HOUR_MS + 15 * MINUTE_MS * np.arange(96 * 7)
    means = series.mean_over(as_of, 24 * HOUR_MS, minutes * MINUTE_MS)
    for moment, mean in zip(as_of.tolist(), means.tolist(), strict=True):
        inside = (series.time_ms > moment - 24 * HOUR_MS) & (series.time_ms <= moment)
        assert inside.sum() == 1440 // minutes
        assert mean == series.open_interest[inside].mean()


@pytest.mark.parametrize("hours", [6, 8, 12, 24])
def test_open_interest_published_a_few_times_a_day_has_no_mean(hours: int) -> None:
    series = sampled_every(hours * HOUR_MS)
    as_of = START_MS + 2 * 24 * HOUR_MS + HOUR_MS * np.arange(24 * 7)
    assert np.isfinite(series.latest_at(as_of, hours * HOUR_MS)).all()
    assert np.isnan(series.mean_over(as_of, 24 * HOUR_MS, hours * HOUR_MS)).all()


@given(any_funding(), any_open_interest(), moments)
def test_what_comes_later_changes_nothing(
    funding: FundingSeries, interest: OpenInterestSeries, as_of: Any
) -> None:
    for moment in as_of:
        at = np.array([moment])
        past = funding.between(None, moment + 1), interest.between(None, moment + 1)
        assert np.array_equal(past[0].rate_at(at), funding.rate_at(at), equal_nan=True)
        for window in (2 * HOUR_MS, 24 * HOUR_MS):
            assert np.array_equal(
                past[1].mean_over(at, window, HOUR_MS),
                interest.mean_over(at, window, HOUR_MS),
                equal_nan=True,
            )


def funding_columns(row: int, field: str, value: float) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "time_ms": START_MS + 8 * HOUR_MS * np.arange(5),
        "rate": np.full(5, 0.0001),
        "interval_hours": np.full(5, 8.0),
    }
    columns[field][row] = value
    return columns


@pytest.mark.parametrize(
    ("row", "field", "value", "reason"),
    [
        (1, "rate", np.nan, "rate not finite"),
        (1, "rate", 1.5, "rate of 100 % or more"),
        (1, "interval_hours", 0.0, "interval not between 0 and 24 hours"),
        (1, "interval_hours", np.nan, "interval not between 0 and 24 hours"),
        (1, "time_ms", START_MS, "duplicate time"),
        (1, "time_ms", START_MS - 1, "not in time order"),
        (0, "time_ms", 1_704_067_200, "time outside 2001 to 2286"),
    ],
)
def test_bad_funding_is_refused_with_its_reason(
    row: int, field: str, value: float, reason: str
) -> None:
    with pytest.raises(InvalidDataError) as refusal:
        FundingSeries.validated(funding_columns(row, field, value))

    assert refusal.value.reasons == {reason: 1}


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("open_interest", np.nan, "open interest not finite"),
        ("open_interest", -1.0, "negative open interest"),
        ("open_interest_value", np.inf, "value infinite or negative"),
        ("open_interest_value", -1.0, "value infinite or negative"),
    ],
)
def test_bad_open_interest_is_refused_with_its_reason(
    field: str, value: float, reason: str
) -> None:
    columns: dict[str, Any] = {
        "time_ms": START_MS + HOUR_MS * np.arange(5),
        "open_interest": np.full(5, 10.0),
        "open_interest_value": np.full(5, np.nan),
    }
    columns[field][2] = value

    with pytest.raises(InvalidDataError) as refusal:
        OpenInterestSeries.validated(columns)

    assert refusal.value.reasons == {reason: 1}


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="differ in length"):
        FundingSeries.validated({"time_ms": [START_MS], "rate": [], "interval_hours": [8.0]})


def test_the_sampling_interval_is_the_median_distance() -> None:
    times = START_MS + HOUR_MS * np.array([0, 1, 2, 5, 6])

    assert sampling_interval_ms(times) == HOUR_MS
    assert sampling_interval_ms(times[:1]) is None


@given(st.sets(st.integers(0, 99), max_size=8), st.integers(24, 120))
def test_a_mean_survives_a_few_missing_samples_only(missing: set[int], hour: int) -> None:
    hours = np.array([h for h in range(100) if h not in missing])
    series = OpenInterestSeries.validated(
        {
            "time_ms": START_MS + HOUR_MS * hours,
            "open_interest": hours + 1.0,
            "open_interest_value": np.full(len(hours), np.nan),
        }
    )

    mean = series.mean_over(np.array([START_MS + HOUR_MS * hour]), 24 * HOUR_MS, HOUR_MS)[0]

    inside = [h + 1.0 for h in hours if hour - 24 < h <= hour]
    if len(inside) >= 22:
        assert mean == pytest.approx(sum(inside) / len(inside))
    else:
        assert math.isnan(mean)
