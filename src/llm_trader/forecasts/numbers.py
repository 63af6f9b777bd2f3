"""What a served forecast is scored by: the numbers that its answer named, by horizon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from llm_trader.retrieval.answer import Answer
from llm_trader.retrieval.forecast import NAMED_PLACES
from llm_trader.timeframe import HORIZONS, HOUR_MS, MINUTE_MS, Millis

QUARTER_HOUR_MS: Final = 15 * MINUTE_MS
# Who asks about an older state replays the past.
_LIVE_WITHIN_MS: Final = HOUR_MS

_Quantiles = Annotated[list[float], Meta(min_length=5, max_length=5)]


class HorizonNumbers(msgspec.Struct, frozen=True, omit_defaults=True):
    """Quantiles at 10, 25, 50, 75 and 90 %, in % change.

    `base_rate` are those of the window; `volatility_model` those of the window in units of the
    expected volatility, so the forecast without its neighbours; `band_80` is the calibrated one.
    `rescaled` are those of the window in units of the volatility of the last 24h, and `random`
    those of the forecast with random neighbours; lines of former versions have neither.
    """

    forecast: _Quantiles
    base_rate: _Quantiles
    volatility_model: _Quantiles
    p_up: float
    band_80: tuple[float, float] | None = None
    rescaled: _Quantiles | None = None
    random: _Quantiles | None = None


Numbers = Mapping[str, HorizonNumbers]


def numbers_of(answer: Answer) -> dict[str, HorizonNumbers]:
    """Of the horizons that have a forecast, without the answer's `references`."""
    numbers = {}
    for name, place in _PLACES.items():
        evidence = answer.evidence.horizons.get(name)
        if evidence is None or evidence.forecast is None or answer.without_neighbours is None:
            continue
        quantiles = evidence.forecast.quantiles
        estimates = evidence.p10, evidence.p25, evidence.p50, evidence.p75, evidence.p90
        numbers[name] = HorizonNumbers(
            [quantiles[level] for level in NAMED_PLACES],
            [estimate.base_rate for estimate in estimates],
            answer.without_neighbours[place],
            evidence.forecast.p_up,
            evidence.band_80,
        )
    return numbers


def with_references(numbers: Numbers, answer: Answer) -> Numbers:
    """The numbers with the `references` of their answer, if it has any."""
    references = answer.references
    if references is None:
        return numbers
    rescaled, random = references.rescaled, references.random
    return {
        name: msgspec.structs.replace(
            of_horizon,
            rescaled=None if rescaled is None else rescaled[_PLACES[name]],
            random=random[_PLACES[name]],
        )
        for name, of_horizon in numbers.items()
    }


_PLACES: Final = {name: place for place, name in enumerate(HORIZONS)}


def is_live(as_of_ms: Millis, now_ms: Millis) -> bool:
    """Whether a state is of about now, so that its forecast is one."""
    return abs(now_ms - as_of_ms) <= _LIVE_WITHIN_MS
