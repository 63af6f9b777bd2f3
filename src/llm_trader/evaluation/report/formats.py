"""Numbers and lists as people read them; a dash stands where nothing is known."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from math import isfinite
from typing import Final, TypeGuard, TypeVar

from llm_trader.retrieval.intervals import Interval

Number = float | None
Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)

DASH: Final = "–"
_SMALLEST_P: Final = 0.001  # 1,000 bootstrap repetitions resolve nothing finer


def is_known(value: Number) -> TypeGuard[float]:
    return value is not None and isfinite(value)


def has_bounds(interval: Interval | None) -> TypeGuard[Interval]:
    return interval is not None and interval.low is not None and interval.high is not None


def scaled(value: Number, factor: float = 100) -> Number:
    return factor * value if is_known(value) else None


def mean(values: Sequence[float]) -> Number:
    return sum(values) / len(values) if values else None


def number(
    value: Number, digits: int = 2, unit: str = "", *, factor: float = 1, sign: bool = False
) -> str:
    if not is_known(value):
        return DASH
    text = f"{abs(factor * value):,.{digits}f}"
    if not float(text.replace(",", "")):
        return f"{text}{unit}"
    return f"{'−' if value < 0 else '+' if sign else ''}{text}{unit}"


share = partial(number, digits=1, unit=" %", factor=100)
skill = partial(number, unit=" %", factor=100, sign=True)
unsigned_skill = partial(number, unit=" %", factor=100)
signed_pct = partial(number, unit=" %", sign=True)
# For text that names the unit: skill in %, and percentage points a day.
bare_skill = partial(number, factor=100, sign=True)
signed_points = partial(number, digits=1, factor=100, sign=True)
daily_points = partial(number, digits=3, sign=True)
compact = "{:g}".format


def usd(amount: Number) -> str:
    """Cents matter in a sum, and fractions of one in a single decision."""
    if not is_known(amount):
        return DASH
    return f"${amount:,.2f}" if amount >= 1 or not amount else f"${amount:.2g}"


def p_value(value: Number) -> str:
    return f"< {_SMALLEST_P}" if is_known(value) and value < _SMALLEST_P else number(value, 3)


def bounds(interval: Interval | None, form: Callable[[Number], str]) -> str:
    """Low to high with the unit once, such as `1.2 to 3.4 %`."""
    if not has_bounds(interval):
        return DASH
    return f"{form(interval.low).split(' ')[0]} to {form(interval.high)}"


def value_range(values: Iterable[Number], form: Callable[[Number], str]) -> str:
    """The smallest to the largest known value; one value where both read the same."""
    known_values = [value for value in values if is_known(value)]
    low, high = form(min(known_values, default=None)), form(max(known_values, default=None))
    return high if low == high else f"{low.split(' ')[0]} to {high}"


def moment(iso8601: str) -> str:
    """`2026-03-20T12:00:00Z` as `2026-03-20 12:00 UTC`."""
    return f"{iso8601[:16].replace('T', ' ')} UTC"


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'s' * (n != 1)}"


def or_none(n: int) -> str:
    return f"{n:,}" if n else "none"


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def listing(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def in_brackets(names: Iterable[str]) -> str:
    text = listing(unique(names))
    return f" ({text})" if text else ""


def unique(keys: Iterable[Key]) -> list[Key]:
    """In the order of their first places."""
    return list(dict.fromkeys(keys))


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
