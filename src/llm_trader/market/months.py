"""Months and days of UTC, by which files of history are divided."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import NamedTuple

from llm_trader.timeframe import DAY_MS, Millis, midnight_ms, utc_date


class Period(NamedTuple):
    """A month such as 2025-01 or a day such as 2025-01-31, its start, and its end excluded."""

    name: str
    start_ms: Millis
    end_ms: Millis


def months(start_ms: Millis, end_ms: Millis) -> Iterator[Period]:
    """Each month that `start_ms <= time < end_ms` touches."""
    first = utc_date(start_ms).replace(day=1)
    while (first_ms := midnight_ms(first)) < end_ms:
        following = (first + timedelta(days=31)).replace(day=1)
        yield Period(f"{first:%Y-%m}", first_ms, midnight_ms(following))
        first = following


def days(start_ms: Millis, end_ms: Millis) -> Iterator[Period]:
    """Each day that `start_ms <= time < end_ms` touches."""
    for first_ms in range(start_ms // DAY_MS * DAY_MS, end_ms, DAY_MS):
        yield Period(utc_date(first_ms).isoformat(), first_ms, first_ms + DAY_MS)
