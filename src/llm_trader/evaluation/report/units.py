"""Numbers as people read them: with their unit, and a dash where nothing is known."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Final

from llm_trader.retrieval.intervals import Interval

Number = float | None

DASH: Final = "–"
_LEAST_P: Final = 0.001
_TO_THE_MINUTE: Final = re.compile(r"^([\d-]{10})T(\d\d:\d\d):[\d.]+Z$")


def known(value: Number) -> bool:
    return value is not None and isfinite(value)


def number(value: Number, digits: int = 2, unit: str = "", *, sign: bool = False) -> str:
    if value is None or not isfinite(value):
        return DASH
    shown = f"{abs(value):,.{digits}f}"
    if not float(shown.replace(",", "")):
        return f"{shown}{unit}"
    return f"{'−' if value < 0 else '+' if sign else ''}{shown}{unit}"


def share(value: Number) -> str:
    """A share from 0 to 1, in %."""
    return number(_hundredfold(value), 1, " %")


def skill(value: Number) -> str:
    """A share that is above 0 where better, in %."""
    return number(_hundredfold(value), 2, " %", sign=True)


def points(value: Number) -> str:
    """A difference of numbers that are in %, in % points."""
    return number(value, 3, " pts", sign=True)


def p_value(value: Number) -> str:
    return f"< {_LEAST_P}" if value is not None and value < _LEAST_P else number(value, 3)


def bounds(interval: Interval | None, shown: Callable[[Number], str]) -> str:
    """Low to high, the unit said once; a dash where one of them is not known."""
    if interval is None or not bounded(interval):
        return DASH
    return f"{shown(interval.low).split(' ')[0]} to {shown(interval.high)}"


def between(values: Sequence[Number], shown: Callable[[Number], str]) -> str:
    """The least to the greatest of those known, the unit said once; one where they read alike."""
    found = [value for value in values if value is not None and isfinite(value)]
    if not found:
        return DASH
    low, high = shown(min(found)), shown(max(found))
    return high if low == high else f"{low.split(' ')[0]} to {high}"


def signed_pct(value: Number) -> str:
    """A number that is in % already, such as a return."""
    return number(value, 2, " %", sign=True)


def estimate(interval: Interval) -> tuple[str, str]:
    """A skill and its interval."""
    return skill(interval.value), bounds(interval, skill)


def moment(iso8601: str) -> str:
    """`2026-03-20T12:00:00Z` as `2026-03-20 12:00 UTC`, to the minute; anything else as it is."""
    return _TO_THE_MINUTE.sub(r"\1 \2 UTC", iso8601)


def bounded(interval: Interval) -> bool:
    return known(interval.low) and known(interval.high)


def counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'s' * (n != 1)}"


def or_none(n: int) -> str:
    return f"{n:,}" if n else "none"


def capital(text: str) -> str:
    """As a sentence begins."""
    return text[:1].upper() + text[1:]


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _hundredfold(value: Number) -> Number:
    return None if value is None else 100 * value
