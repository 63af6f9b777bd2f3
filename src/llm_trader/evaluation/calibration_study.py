"""What was measured while a calibration was fitted, as the results of a study."""

from __future__ import annotations

from typing import Final

import numpy as np
from msgspec.structs import replace

from llm_trader.evaluation.conformal.bands import BY_HOURS, BY_RATIO
from llm_trader.evaluation.conformal.calibration_fit import Fit, Scores
from llm_trader.evaluation.plan import ForecastRule, Search, StudyPlan
from llm_trader.evaluation.report import wording
from llm_trader.evaluation.result_files import Steps, Study
from llm_trader.evaluation.results import (
    SCHEMA_VERSION,
    VERDICT_REFERENCE,
    Band,
    BandCell,
    Metrics,
    Origin,
    Skill,
    Trials,
)
from llm_trader.evaluation.significance import verdict
from llm_trader.evaluation.verdict.verdicts import overall
from llm_trader.retrieval.calibration import Calibration
from llm_trader.timeframe import iso8601

ALL_SYMBOLS: Final = "all symbols"


def calibration_study(
    fit: Fit, search: Search, *, trials_so_far: int, seconds: float, settings_digest: str | None
) -> Study:
    """Bands and skills of the held-out part, of all symbols together, and every query's scores."""
    calibration = fit.calibration
    held_out_ms = calibration.held_out_from_ms
    queries = {
        name: int((scores.time_ms[np.isfinite(scores.score)] >= held_out_ms).sum())
        for name, scores in fit.scores.items()
    }
    skills = [
        Skill(
            variant=calibration.scope.vector,
            symbol=ALL_SYMBOLS,
            horizon=name,
            reference=VERDICT_REFERENCE,
            queries=queries[name],
            skill=horizon.skill,
            potential=None,
            p_value=None,
            p_adjusted=None,
            detectable=None,
            verdict=verdict(horizon.skill),
        )
        for name, horizon in calibration.horizons.items()
    ]
    bands = [
        Band(
            symbol=ALL_SYMBOLS,
            horizon=name,
            before=horizon.coverage_before,
            after=horizon.coverage_after,
            queries=queries[name],
        )
        for name, horizon in calibration.horizons.items()
    ]
    cells = [
        BandCell(
            symbol=ALL_SYMBOLS,
            horizon=name,
            by=by,
            value=value,
            before=coverage.before,
            after=coverage.after,
            queries=coverage.queries,
        )
        for name, horizon in calibration.horizons.items()
        for by, division in (
            (BY_RATIO, horizon.by_volatility_ratio),
            (BY_HOURS, horizon.by_hours),
            ("symbol", horizon.by_symbol),
        )
        for value, coverage in division.items()
    ]
    metrics = Metrics(
        schema_version=SCHEMA_VERSION,
        command="calibrate",
        created_at=calibration.created_at,
        origin=_origin(calibration, search, settings_digest),
        verdict=overall(skill.verdict for skill in skills),
        skills=skills,
        bands=bands,
        band_cells=cells,
        trials=Trials(so_far=trials_so_far, configurations=[], superior_p_value=None, tested=0),
        seconds=seconds,
    )
    steps = [
        part for name, scores in fit.scores.items() for part in _steps(calibration, name, scores)
    ]
    readings = wording.readings(metrics)
    return Study(replace(metrics, readings=readings), steps, [])


def _origin(calibration: Calibration, search: Search, settings_digest: str | None) -> Origin:
    scope = calibration.scope
    plan = StudyPlan(
        symbols=scope.symbols,
        step_minutes=calibration.step_minutes,
        search=search,
        rules={
            name: ForecastRule(weight_of_neighbours=horizon.weight_of_neighbours)
            for name, horizon in calibration.horizons.items()
        },
        seed=calibration.seed,
    )
    return Origin(
        package_version=calibration.package_version,
        exchange=scope.exchange,
        symbols=list(scope.symbols),
        start=iso8601(calibration.held_out_from_ms),
        end=iso8601(calibration.known_by_ms),
        feature_version=scope.feature_version,
        state_space_id=scope.state_space_id,
        text_space_id=scope.text_space_id,
        settings_digest=plan.digest(),
        program_settings_digest=settings_digest,
        data_digest=calibration.data_digest,
        lookback_filled={},
        plan=plan,
    )


def _steps(calibration: Calibration, horizon: str, scores: Scores) -> list[Steps]:
    steps = []
    for number, symbol in enumerate(calibration.scope.symbols):
        rows = scores.conditions.symbol == number
        columns = {
            "band_score": scores.score[rows],
            "crps_forecast": scores.forecast_loss[rows],
            "crps_volatility_model": scores.model_loss[rows],
        }
        vector = calibration.scope.vector
        steps.append(Steps(vector, symbol, horizon, scores.time_ms[rows], columns))
    return steps
