"""Time is counted in integer UTC milliseconds, on fixed grids.

Nothing here reads the clock: the present time is an argument where it matters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from llm_trader.errors import InvalidInputError

Millis = int

SECOND_MS: Final[Millis] = 1_000
MINUTE_MS: Final[Millis] = 60 * SECOND_MS
HOUR_MS: Final[Millis] = 60 * MINUTE_MS
DAY_MS: Final[Millis] = 24 * HOUR_MS

# Year 2001 to 2286: exactly the 13-digit times, so that store keys sort as text.
MIN_TIME_MS: Final[Millis] = 10**12
MAX_TIME_MS: Final[Millis] = 10**13 - 1

# How far ahead outcomes and forecasts look.
HORIZONS: Final[dict[str, Millis]] = {
    "15m": 15 * MINUTE_MS,
    "1h": HOUR_MS,
    "4h": 4 * HOUR_MS,
    "24h": DAY_MS,
}

# The word for the end of the stored data.
LATEST: Final = "latest"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH: Final = _EPOCH.replace(tzinfo=None)
_UNITS: Final = {"m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}


@dataclass(frozen=True, order=True, slots=True)
class Timeframe:
    """The length of a candle, such as `3m`. Candles open on multiples of it since 1970."""

    ms: Millis

    @classmethod
    def parse(cls, text: str) -> Timeframe:
        match = re.fullmatch(r"([1-9]\d{0,3})([mhd])", text, re.ASCII)
        if not match:
            raise InvalidInputError(f"timeframe {text!r} is not like 3m, 4h or 1d")
        return cls(int(match[1]) * _UNITS[match[2]])

    def __str__(self) -> str:
        for unit, ms in reversed(_UNITS.items()):
            if self.ms % ms == 0:
                return f"{self.ms // ms}{unit}"
        return f"{self.ms}ms"

    def floor(self, time_ms: Millis) -> Millis:
        """The latest multiple of this timeframe at or before `time_ms`."""
        return time_ms - time_ms % self.ms


M1: Final = Timeframe(MINUTE_MS)
M3: Final = Timeframe(3 * MINUTE_MS)
M5: Final = Timeframe(5 * MINUTE_MS)
M15: Final = Timeframe(15 * MINUTE_MS)
H1: Final = Timeframe(HOUR_MS)
H4: Final = Timeframe(4 * HOUR_MS)


def iso8601(time_ms: Millis) -> str:
    """Such as `2026-03-20T12:00:00Z`; milliseconds are shown only if they are not zero."""
    moment = _NAIVE_EPOCH + timedelta(milliseconds=time_ms)
    return moment.isoformat(timespec="milliseconds" if time_ms % 1000 else "seconds") + "Z"


def utc_date(time_ms: Millis) -> date:
    return (_NAIVE_EPOCH + timedelta(milliseconds=time_ms)).date()


def midnight_ms(day: date) -> Millis:
    """The time at which a UTC day begins."""
    return (datetime.combine(day, time()) - _NAIVE_EPOCH) // timedelta(milliseconds=1)


def parse_rfc3339(text: str) -> Millis:
    """Milliseconds of an RFC 3339 time. A time without an offset is ambiguous, so it is refused."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or not re.match(r"\d{4}-\d\d-\d\d[Tt ]", text, re.ASCII):
        raise InvalidInputError(f"time {text!r} is not RFC 3339, such as 2026-03-20T12:00:00Z")
    if moment.tzinfo is None:
        raise InvalidInputError(f"time {text!r} has no offset; for UTC write {text}Z")
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def parse_shift(text: str) -> Millis:
    """A signed length of time, such as -4h or +30m."""
    match = re.fullmatch(r"([+-]?)([1-9]\d{0,3}[mhd])", text, re.ASCII)
    if not match:
        raise InvalidInputError(f"shift {text!r} is not like -4h, +30m or +1d")
    return (-1 if match[1] == "-" else 1) * Timeframe.parse(match[2]).ms


def parse_start(text: str, end_ms: Millis) -> Millis:
    """A number of days before `end_ms`, an RFC 3339 time, or a date."""
    if re.fullmatch(r"\d{1,5}(\.\d{1,6})?", text, re.ASCII):
        return end_ms - round(float(text) * DAY_MS)
    return parse_time(text)


def parse_end(text: str, now_ms: Millis) -> Millis:
    """The word `now`, an RFC 3339 time, or a date."""
    return now_ms if text == "now" else parse_time(text)


def parse_time(text: str) -> Millis:
    """An RFC 3339 time; a date means its midnight UTC."""
    is_date = re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII)
    return parse_rfc3339(f"{text}T00:00:00Z" if is_date else text)
