"""What was measured while a calibration was fitted, in the files of an evaluation."""

from __future__ import annotations

from typing import Final

import numpy as np
from msgspec.structs import replace

from llm_trader.evaluation.conformal.calibration_fit import Fitted, Scores
from llm_trader.evaluation.csv_tables import Steps
from llm_trader.evaluation.forecast.ensembles import ForecastRule
from llm_trader.evaluation.forecast.neighbour_search import Search
from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.report import wording
from llm_trader.evaluation.results import (
    SCHEMA_VERSION,
    VERDICT_REFERENCE,
    Band,
    Metrics,
    Origin,
    Skill,
    Trials,
)
from llm_trader.evaluation.significance import verdict
from llm_trader.evaluation.study import Study
from llm_trader.evaluation.verdict.verdicts import overall, verdict_variant
from llm_trader.retrieval.calibration import Calibration, HorizonCalibration
from llm_trader.timeframe import iso8601

ALL: Final = "all symbols"


def study_of(fitted: Fitted, search: Search, trials_so_far: int, seconds: float) -> Study:
    """Bands and skills of the held-out part, of all symbols together, and every query's scores."""
    made = fitted.calibration
    held_out = {
        name: int((of.time_ms[np.isfinite(of.score)] >= made.held_out_from_ms).sum())
        for name, of in fitted.scores.items()
    }
    skills = [_skill(made, name, of, held_out[name]) for name, of in made.horizons.items()]
    metrics = Metrics(
        schema_version=SCHEMA_VERSION,
        command="calibrate",
        created_at=made.created_at,
        origin=_origin(made, search),
        verdict=overall(one.verdict for one in skills),
        readings=[],
        skills=skills,
        undirected=[],
        directions=[],
        probabilities=[],
        bands=[
            Band(
                symbol=ALL,
                horizon=name,
                before=of.coverage_before,
                after=of.coverage_after,
                queries=held_out[name],
            )
            for name, of in made.horizons.items()
        ],
        arms=[],
        controls=[],
        probes=[],
        slices=[],
        trials=Trials(so_far=trials_so_far, configurations=[], superior_p_value=None, tested=0),
        histograms=[],
        curves=[],
        seconds=seconds,
    )
    steps = [one for name, of in fitted.scores.items() for one in _steps(made, name, of)]
    readings = wording.readings(metrics, verdict_variant(metrics))
    return Study(replace(metrics, readings=readings), steps, [])


def _skill(made: Calibration, name: str, of: HorizonCalibration, queries: int) -> Skill:
    return Skill(
        variant=made.scope.vector,
        symbol=ALL,
        horizon=name,
        reference=VERDICT_REFERENCE,
        queries=queries,
        skill=of.skill,
        p_value=None,
        p_adjusted=None,
        detectable=None,
        verdict=verdict(of.skill),
    )


def _origin(made: Calibration, search: Search) -> Origin:
    rules = {
        name: ForecastRule(rescale=of.rescale, neighbour_share=of.neighbour_share)
        for name, of in made.horizons.items()
    }
    plan = StudyPlan(
        symbols=made.scope.symbols,
        step_minutes=made.step_minutes,
        search=search,
        rules=rules,
        seed=made.seed,
    )
    return Origin(
        package_version=made.package_version,
        exchange=made.scope.exchange,
        symbols=list(made.scope.symbols),
        start=iso8601(made.held_out_from_ms),
        end=iso8601(made.known_by_ms),
        feature_version=made.scope.feature_version,
        state_space_id=made.scope.state_space_id,
        text_space_id=made.scope.text_space_id,
        settings_digest=plan.digest(),
        data_digest=made.data_digest,
        whole_lookback={},
        plan=plan,
    )


def _steps(made: Calibration, name: str, of: Scores) -> list[Steps]:
    found = []
    for number, symbol in enumerate(made.scope.symbols):
        own = of.symbol == number
        columns = {
            "band_score": of.score[own],
            "crps_forecast": of.forecast_loss[own],
            "crps_base_rate_treated_alike": of.base_loss[own],
        }
        found.append(Steps(made.scope.vector, symbol, name, of.time_ms[own], columns))
    return found
