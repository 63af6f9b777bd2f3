"""The conditions that refine a cohort, the name of a cohort, and the looks that its verdict pays.

Who looks at many cohorts finds one that deviates by chance. Looks that were made could be counted,
but a count can be escaped: from an earlier answer another branch begins, on another connection or
another worker. So a verdict allows for all cohorts of its state that could ever be looked at. They
are few, because conditions come from a menu. A cohort is then its name and nothing else: no server
keeps anything, and there is nothing to forge or to forget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from llm_trader.arrays import Floats, Mask
from llm_trader.errors import InvalidInputError
from llm_trader.index.points import PointTable
from llm_trader.timeframe import DAY_MS, Millis, iso8601, parse_rfc3339

# Each divides the states by two or three, so a fourth leaves too few of 90 days for a verdict.
MAX_CONDITIONS: Final = 3
_UNKNOWN: Final = -1
_WEEK_DAYS: Final = 5
# 1970 began on a Thursday.
_FIRST_WEEK_DAY: Final = 3

# The place of each point's value among those of a dimension; -1 where it has none.
Places = npt.NDArray[np.int64]


class Dimension(NamedTuple):
    """Something by which states are told apart."""

    name: str
    values: tuple[str, ...]
    places: Callable[[PointTable], Places]
    description: str


def _sign(field: str, centre: float) -> Callable[[PointTable], Places]:
    def places(window: PointTable) -> Places:
        distance = window.column(field) - centre
        return np.where(distance < 0, 0, np.where(distance > 0, 1, _UNKNOWN))

    return places


def _thirds(field: str) -> Callable[[PointTable], Places]:
    def places(window: PointTable) -> Places:
        column = window.column(field)
        known = np.isfinite(column)
        if not known.any():
            return np.full(len(column), _UNKNOWN)
        steps = np.quantile(column[known], [1 / 3, 2 / 3])
        return np.where(known, steps.searchsorted(column), _UNKNOWN)

    return places


def _hours(window: PointTable) -> Places:
    hours: Floats = window.column("hour_of_day") // 8
    return np.where(np.isfinite(hours), hours, _UNKNOWN).astype(np.int64)


def _week(window: PointTable) -> Places:
    week_day = (window.timestamp_ms // DAY_MS + _FIRST_WEEK_DAY) % 7
    return np.asarray((week_day >= _WEEK_DAYS).astype(np.int64))


_THIRDS: Final = ("low", "middle", "high")
DIMENSIONS: Final = (
    Dimension(
        "funding", ("negative", "positive"), _sign("funding_rate", 0.0), "sign of the last funding"
    ),
    Dimension(
        "volatility",
        _THIRDS,
        _thirds("realized_volatility_24h"),
        "third of the window by realised volatility of 24h",
    ),
    Dimension("hour", ("0-8", "8-16", "16-24"), _hours, "hours of the day, UTC"),
    Dimension("trend", ("down", "up"), _sign("ema_ratio", 1.0), "EMA20 below or above EMA50, 4h"),
    Dimension(
        "oi_change",
        _THIRDS,
        _thirds("oi_delta_pct"),
        "third of the window by open interest over its 24h mean",
    ),
    Dimension(
        "change_24h",
        _THIRDS,
        _thirds("price_change_24h"),
        "third of the window by price change of 24h",
    ),
    Dimension(
        "volume",
        _THIRDS,
        _thirds("volume_ratio"),
        "third of the window by the last hour's volume over the mean hour of 24h",
    ),
    Dimension("week", ("weekday", "weekend"), _week, "Monday to Friday, or Saturday and Sunday"),
)

# Names such as `funding=negative`, in the order of the menu.
CONDITIONS: Final = tuple(f"{d.name}={value}" for d in DIMENSIONS for value in d.values)
_ORDER: Final = {name: place for place, name in enumerate(CONDITIONS)}


def condition_masks(window: PointTable, names: Iterable[str] = CONDITIONS) -> dict[str, Mask]:
    """Which points meet each condition. Thirds are those of the whole window."""
    masks, places = {}, {}
    dimensions = {dimension.name: dimension for dimension in DIMENSIONS}
    for name in names:
        key, _, value = name.partition("=")
        dimension = dimensions[key]
        if key not in places:
            places[key] = dimension.places(window)
        masks[name] = places[key] == dimension.values.index(value)
    return masks


def further_conditions(conditions: Sequence[str]) -> tuple[str, ...]:
    """What can still be added: one of each dimension, and not too many."""
    if len(conditions) >= MAX_CONDITIONS:
        return ()
    taken = {_dimension_of(name) for name in conditions}
    return tuple(name for name in CONDITIONS if _dimension_of(name) not in taken)


def looks(conditions: int) -> int:
    """The looks that a verdict about a cohort with so many conditions allows for.

    Each number of conditions has an equal share of the chance of error. In it, every cohort is
    compared with the window, and with each cohort that it may be refined from.
    """
    return (MAX_CONDITIONS + 1) * _cohorts(conditions) * (conditions + 1)


def _cohorts(conditions: int) -> int:
    """How many different cohorts of a state have so many conditions."""
    counts = [1] + [0] * conditions
    for dimension in DIMENSIONS:
        for size in range(conditions, 0, -1):
            counts[size] += counts[size - 1] * len(dimension.values)
    return counts[conditions]


class CohortName(NamedTuple):
    """What a cohort is. Its text is the same whatever the order in which conditions were added."""

    symbol: str
    as_of_ms: Millis
    conditions: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> CohortName:
        """Raises `InvalidInputError`."""
        moment, *conditions = text.split("/")
        symbol, at_sign, time = moment.partition("@")
        if not (symbol and at_sign):
            raise InvalidInputError(
                f"cohort {text[:100]!r} is no name of a cohort, such as "
                "BTCUSDT@2026-03-20T12:00:00Z/funding=negative; cohort_open gives one"
            )
        return cls(symbol, parse_rfc3339(time)).refined(conditions)

    def refined(self, conditions: Iterable[str]) -> CohortName:
        """Raises `InvalidInputError` for a condition that is unknown, or cannot be added."""
        chosen = list(self.conditions)
        for name in conditions:
            if name not in _ORDER:
                raise InvalidInputError(
                    f"condition {name[:100]!r} is unknown; choose from {', '.join(CONDITIONS)}"
                )
            if name in chosen:
                continue
            if name not in further_conditions(chosen):
                self._refuse(name, chosen)
            chosen.append(name)
        return self._replace(conditions=tuple(sorted(chosen, key=_ORDER.__getitem__)))

    def _refuse(self, name: str, chosen: Sequence[str]) -> None:
        same = next((c for c in chosen if _dimension_of(c) == _dimension_of(name)), None)
        reason = (
            f"it already has {same}"
            if same
            else f"it already has {len(chosen)} conditions, and more leave too few states"
        )
        raise InvalidInputError(
            f"condition {name!r} cannot be added to the cohort: {reason}; refine a cohort "
            "without it"
        )

    def __str__(self) -> str:
        return "/".join((f"{self.symbol}@{iso8601(self.as_of_ms)}", *self.conditions))


def _dimension_of(condition: str) -> str:
    return condition.partition("=")[0]
