"""An answer as curves over the next 24 hours, in % of the price. No drawing here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Final

from llm_trader.timeframe import DAY_MS, HORIZONS, MINUTE_MS

if TYPE_CHECKING:
    from llm_trader.retrieval.answer import Evidence, HorizonEvidence

STEP_MS: Final = 15 * MINUTE_MS
STEPS: Final = DAY_MS // STEP_MS
# The quantiles of a forecast that bound 8, and 5, of 10 outcomes, and its middle, counted from 0.
_ENDS_80: Final = (9, 89)
_ENDS_50: Final = (24, 74)
_MIDDLE: Final = 49

Curve = Sequence[float]


@dataclass(frozen=True, slots=True)
class Fan:
    """Each curve has a value for now and each quarter-hour of the next 24 hours."""

    outer: tuple[Curve, Curve]
    inner: tuple[Curve, Curve]
    middle: Curve
    usual: tuple[Curve, Curve]
    move: Curve


def range_now(horizon: HorizonEvidence) -> tuple[float, float] | None:
    """Where 8 of 10 outcomes should fall, in % of the price; None without a forecast."""
    if horizon.band_80 is not None:
        return horizon.band_80
    if horizon.forecast is None:
        return None
    low, high = (horizon.forecast.quantiles[end] for end in _ENDS_80)
    return low, high


def fan_of(evidence: Evidence) -> Fan | None:
    """None without a forecast."""
    knots = sorted((HORIZONS[name] / DAY_MS, horizon) for name, horizon in _named(evidence))
    if not knots or any(range_now(horizon) is None for _, horizon in knots):
        return None

    def curve(value: Callable[[HorizonEvidence], float]) -> Curve:
        return _spread([(sqrt(days), value(horizon)) for days, horizon in knots])

    def quantile(position: int) -> Curve:
        return curve(lambda h: h.forecast.quantiles[position] if h.forecast else 0.0)

    def end(position: int) -> Curve:
        return curve(lambda h: (range_now(h) or (0.0, 0.0))[position])

    return Fan(
        outer=(end(0), end(1)),
        inner=(quantile(_ENDS_50[0]), quantile(_ENDS_50[1])),
        middle=quantile(_MIDDLE),
        usual=(curve(lambda h: h.p10.base_rate), curve(lambda h: h.p90.base_rate)),
        move=curve(lambda h: h.expected_volatility_pct or 0.0),
    )


def _named(evidence: Evidence) -> list[tuple[str, HorizonEvidence]]:
    return [(name, horizon) for name, horizon in evidence.horizons.items() if name in HORIZONS]


def _spread(knots: list[tuple[float, float]]) -> Curve:
    """Between two horizons a curve follows the root of time, as a random walk spreads."""
    from numpy import interp

    roots = [sqrt(step / STEPS) for step in range(STEPS + 1)]
    xs, ys = zip((0.0, 0.0), *knots, strict=True)
    values: list[float] = interp(roots, xs, ys).tolist()
    return values
