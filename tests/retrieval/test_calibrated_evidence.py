"""What a calibration changes in the evidence: bands, and when a verdict is informative."""

from __future__ import annotations

import math

import numpy as np
import pytest

from llm_trader.retrieval.calibration import LoadedCalibration, scope_of
from llm_trader.retrieval.evidence import (
    EpisodeNumbers,
    Neighbourhood,
    Outlook,
    Prospect,
    build_evidence,
)
from llm_trader.retrieval.forecast import NEIGHBOURS, ForecastBase
from llm_trader.retrieval.reference import BaseRates
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS
from tests.index.builders import SYMBOL
from tests.retrieval.builders import COLLECTION, SPACE, comparable, index_of, past, state_of
from tests.retrieval.calibrations import calibration

ALL = tuple(HORIZONS)
EXPECTED_PCT = [0.2, 0.5, 1.1, 2.4]
MARGINS = [0.05, 0.1, -0.02, 0.4]


def outlook(
    episodes: Neighbourhood, margins: list[float] | None = None, expected_pct: float | None = None
) -> Outlook:
    volatilities = EXPECTED_PCT if expected_pct is None else [expected_pct] * len(HORIZONS)
    window = episodes.points
    prospect = Prospect.of(ForecastBase.of(window), episodes)
    return Outlook.of(prospect, window, volatilities, margins)


def numbers(episodes: Neighbourhood, volatility_pct: float = 2.0) -> EpisodeNumbers:
    one = episodes.rows[None], episodes.similarity[None]
    [result] = EpisodeNumbers.of(episodes.points, *one, np.array([volatility_pct]))
    return result


@pytest.mark.parametrize("neighbours", [50, NEIGHBOURS])
def test_bands_are_the_forecasts_outer_quantiles_corrected(neighbours: int) -> None:
    window = past(range(1200))
    similarity = np.linspace(0.9, 0.5, neighbours)
    episodes = Neighbourhood(window, np.arange(neighbours) * 4, similarity)
    base, parts = BaseRates.of(window), (ALL, 2.0, None)
    evidence = build_evidence(
        numbers(episodes), base, outlook(episodes, MARGINS), *parts, calibration()
    )
    plain = build_evidence(numbers(episodes), base, outlook(episodes), *parts)
    assert (evidence.calibrated, plain.calibrated) == (True, False)
    for name, margin, expected_pct in zip(HORIZONS, MARGINS, EXPECTED_PCT, strict=True):
        forecast = evidence.horizons[name].forecast
        assert forecast is not None
        low, high = (forecast.quantiles[level - 1] for level in (10, 90))
        corrected = low - margin * expected_pct, high + margin * expected_pct
        assert evidence.horizons[name].band_80 == pytest.approx(corrected)
        assert plain.horizons[name].band_80 is None
        # What is said in words is the corrected band where there is one.
        told, uncorrected = (of.horizons[name].summary for of in (evidence, plain))
        assert f"between {corrected[0]:+.2f} and {corrected[1]:+.2f})" in str(told)
        assert f"between {low:+.2f} and {high:+.2f})" in str(uncorrected)


def test_a_margin_below_zero_narrows_a_band_to_its_middle_at_most() -> None:
    window = past(range(300))
    episodes = Neighbourhood(window, np.arange(50), np.linspace(0.9, 0.5, 50))
    parts = numbers(episodes), BaseRates.of(window), outlook(episodes, [-99.0] * 4), ALL, 2.0, None
    for of in build_evidence(*parts, calibration()).horizons.values():
        assert of.forecast is not None
        middle = (of.forecast.quantiles[9] + of.forecast.quantiles[89]) / 2
        assert of.band_80 == pytest.approx((middle, middle))


def test_without_the_volatility_expected_now_there_is_no_band() -> None:
    window = past(range(100))
    episodes = Neighbourhood(window, np.arange(50), np.linspace(0.9, 0.5, 50))
    unknown = outlook(episodes, MARGINS, math.nan)
    evidence = build_evidence(
        numbers(episodes), BaseRates.of(window), unknown, ALL, 2.0, None, calibration()
    )
    assert [of.band_80 for of in evidence.horizons.values()] == [None] * 4


async def test_a_calibration_that_is_not_used_leaves_only_its_warning() -> None:
    points = past(range(2000))
    config = SearchSpec(lookback_days=20, include_regime_filters=False, evidence_k=20)
    as_of_ms = int(points.timestamp_ms[-1]) + DAY_MS
    scope = scope_of(COLLECTION, SYMBOL, config)
    times = {"known_by_ms": as_of_ms, "fitted_from_ms": 0, "held_out_from_ms": 1}
    async with index_of(points) as index:
        state = state_of(points, -1, as_of_ms)
        plain = await Retriever(index, SPACE).query(state, as_of_ms, config)
        for change, used in (({}, True), ({"known_by_ms": as_of_ms + 1}, False)):
            loaded = LoadedCalibration(calibration(**(times | change), scope=scope), 30)
            answer = await Retriever(index, SPACE, None, loaded).query(state, as_of_ms, config)
            assert answer.evidence.calibrated == used == (answer.calibration == loaded.used)
            if not used:
                (warning,) = answer.warnings
                assert warning.startswith("the calibration was not used: it contains outcomes up ")
                answer.warnings.clear()
                assert comparable(answer) == comparable(plain)


async def test_served_bands_are_those_of_the_conditions_of_the_query() -> None:
    points = past(range(2000))
    config = SearchSpec(lookback_days=20, include_regime_filters=False)
    latest_ms = int(points.timestamp_ms[-1]) + DAY_MS
    times = {"known_by_ms": latest_ms, "fitted_from_ms": 0, "held_out_from_ms": 1}
    made = calibration(**times, scope=scope_of(COLLECTION, SYMBOL, config))
    loaded = LoadedCalibration(made, 30)
    found = set()
    async with index_of(points) as index:
        for row, hours in ((-1, 0), (-40, 5), (-90, 17)):
            as_of_ms = latest_ms + hours * HOUR_MS
            state = state_of(points, row, as_of_ms)
            answer = await Retriever(index, SPACE, None, loaded).query(state, as_of_ms, config)
            assert answer.evidence.calibrated
            for name, of in answer.evidence.horizons.items():
                expected, realized = (
                    float(points.column(column)[row])
                    for column in (f"expected_volatility_{name}", "realized_volatility_24h")
                )
                margin = made.horizons[name].margins.of(expected / realized, as_of_ms, SYMBOL)
                assert of.forecast is not None
                low, high = of.forecast.quantiles[9], of.forecast.quantiles[89]
                corrected = low - margin * expected, high + margin * expected
                assert of.band_80 == pytest.approx(corrected)
                found.add(round(margin, 6))
    assert len(found) > 4
