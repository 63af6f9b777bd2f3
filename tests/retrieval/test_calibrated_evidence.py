"""What a calibration changes in the evidence: bands, and when a verdict is informative."""

from __future__ import annotations

import math

import numpy as np
import pytest

from llm_trader.retrieval.calibration import LoadedCalibration, scope_of
from llm_trader.retrieval.evidence import Comparison, Neighbourhood, build_evidence, decide_verdict
from llm_trader.retrieval.reference import BaseRates
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.timeframe import DAY_MS, HORIZONS
from tests.index.builders import SYMBOL
from tests.retrieval.builders import COLLECTION, SPACE, comparable, index_of, past, state_of
from tests.retrieval.calibrations import calibration, of_horizon

ALL = tuple(HORIZONS)
MARGINS = {"15m": 0.05, "1h": 0.1, "4h": -0.02, "24h": 0.4}


def comparisons(**deviations: float) -> list[Comparison]:
    return [Comparison(f"the mean over {h}", 1.0, 0.0, d, h) for h, d in deviations.items()]


def verdict(skilled: frozenset[str] | None, **deviations: float) -> tuple[str, str]:
    named = {name.removeprefix("h"): of for name, of in deviations.items()}
    return decide_verdict(comparisons(**named), 40.0, None, skilled)


def test_without_a_calibration_any_horizon_can_be_informative() -> None:
    assert verdict(None, h15m=9.0)[0] == "informative"


def test_with_one_a_horizon_is_informative_only_where_skill_was_measured() -> None:
    evidence, reason = verdict(frozenset({"4h"}), h4h=-9.0, h24h=1.0)
    assert evidence == "informative"
    assert "over 4h such neighbours forecast better than the base rate" in reason
    evidence, reason = verdict(frozenset({"24h"}), h4h=-9.0, h24h=1.0)
    assert evidence == "weak"
    assert reason.endswith(
        "but over 4h such neighbours did not forecast better than the base rate in the calibration"
    )


def test_with_skill_at_no_horizon_nothing_is_more_than_weak() -> None:
    evidence, reason = verdict(frozenset(), h15m=9.0, h1h=9.0, h4h=9.0, h24h=9.0)
    assert evidence == "weak"
    assert "but at no horizon did such neighbours forecast better than the base rate" in reason
    assert reason.endswith("in the calibration")


def test_the_reason_is_of_the_horizon_that_has_skill_not_of_a_larger_deviation() -> None:
    evidence, reason = verdict(frozenset({"1h"}), h1h=5.0, h4h=9.0)
    assert evidence == "informative"
    assert reason.startswith("the mean over 1h")


@pytest.mark.parametrize("deviation", [0.5, 3.0])
def test_below_informative_a_calibration_changes_nothing(deviation: float) -> None:
    assert verdict(frozenset(), h4h=deviation) == verdict(None, h4h=deviation)


def test_bands_are_the_rescaled_outer_quantiles_corrected() -> None:
    window = past(range(300))
    episodes = Neighbourhood(window, np.arange(0, 300, 6), np.linspace(0.9, 0.5, 50))
    fitted = calibration(horizons={name: of_horizon(of) for name, of in MARGINS.items()})
    evidence = build_evidence(episodes, BaseRates.of(window), ALL, 2.0, None, fitted)
    plain = build_evidence(episodes, BaseRates.of(window), ALL, 2.0, None)
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
    evidence = build_evidence(episodes, BaseRates.of(window), ALL, math.nan, None, calibration())
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
