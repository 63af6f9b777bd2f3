"""What a calibration changes in the evidence: bands, and when a verdict is informative."""

from __future__ import annotations

import math

import numpy as np
import pytest

from llm_trader.retrieval.calibration import LoadedCalibration, scope_of
from llm_trader.retrieval.evidence import Neighbourhood, Outlook, build_evidence
from llm_trader.retrieval.forecast import ForecastBase
from llm_trader.retrieval.reference import BaseRates
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.timeframe import DAY_MS, HORIZONS
from tests.index.builders import SYMBOL
from tests.retrieval.builders import COLLECTION, SPACE, comparable, index_of, past, state_of
from tests.retrieval.calibrations import calibration, of_horizon

ALL = tuple(HORIZONS)
MARGINS = {"15m": 0.05, "1h": 0.1, "4h": -0.02, "24h": 0.4}


def outlook(episodes: Neighbourhood) -> Outlook:
    return Outlook.of(ForecastBase.of(episodes.points), episodes, np.ones(len(HORIZONS)))


def test_bands_are_the_rescaled_outer_quantiles_corrected() -> None:
    window = past(range(300))
    episodes = Neighbourhood(window, np.arange(0, 300, 6), np.linspace(0.9, 0.5, 50))
    fitted = calibration(horizons={name: of_horizon(of) for name, of in MARGINS.items()})
    parts = episodes, BaseRates.of(window), outlook(episodes), ALL, 2.0, None
    evidence, plain = build_evidence(*parts, fitted), build_evidence(*parts)
    assert (evidence.calibrated, plain.calibrated) == (True, False)
    for name, margin in MARGINS.items():
        rescaled = evidence.horizons[name].rescaled
        assert rescaled is not None
        corrected = rescaled.p10 - 2 * margin, rescaled.p90 + 2 * margin
        assert evidence.horizons[name].band_80 == pytest.approx(corrected)
        assert plain.horizons[name].band_80 is None


def test_without_the_volatility_of_now_there_is_no_band() -> None:
    window = past(range(100))
    episodes = Neighbourhood(window, np.arange(50), np.linspace(0.9, 0.5, 50))
    parts = episodes, BaseRates.of(window), outlook(episodes), ALL, math.nan, None
    evidence = build_evidence(*parts, calibration())
    assert [of.band_80 for of in evidence.horizons.values()] == [None] * 4


async def test_a_calibration_that_is_not_used_leaves_only_its_warning() -> None:
    points = past(range(1200))
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
