"""Months and days of UTC, by which files of history are divided."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from llm_trader.timeframe import DAY_MS, Millis, iso8601


class Period(NamedTuple):
    """A month such as 2025-01 or a day such as 2025-01-31, its start, and its end excluded."""

    name: str
    start_ms: Millis
    end_ms: Millis


def months(start_ms: Millis, end_ms: Millis) -> Iterator[Period]:
    """Each month that `start_ms <= time < end_ms` touches."""
    moment = datetime.fromtimestamp(start_ms / 1000, UTC)
    year, month = moment.year, moment.month
    while (first_ms := _midnight_ms(year, month)) < end_ms:
        following = (year + 1, 1) if month == 12 else (year, month + 1)
        yield Period(f"{year:04}-{month:02}", first_ms, _midnight_ms(*following))
        year, month = following


def days(start_ms: Millis, end_ms: Millis) -> Iterator[Period]:
    """Each day that `start_ms <= time < end_ms` touches."""
    for first_ms in range(start_ms // DAY_MS * DAY_MS, end_ms, DAY_MS):
        yield Period(iso8601(first_ms)[:10], first_ms, first_ms + DAY_MS)


def _midnight_ms(year: int, month: int) -> Millis:
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp()) * 1000
