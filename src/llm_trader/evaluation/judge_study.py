"""Anybody's forecasts, judged as this program's own are: same references, scores and controls.

The references answer the same queries; `served forecast` is this program's own. Two more controls
are made from the given forecasts: a forecast is no better than that of another time where outcomes
are shuffled, and knowledge of the outcome that is planted into a forecast is found. Whether a
forecast from outside knew the future cannot be probed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from msgspec.structs import replace

from llm_trader.arrays import Floats, Rows
from llm_trader.evaluation.conformal.bands import cover, measure_band, measure_band_cells
from llm_trader.evaluation.controls.negative_controls import (
    LossesOf,
    controls_of,
    judge,
    market_controls,
    simulated_controls,
)
from llm_trader.evaluation.forecast.ensembles import (
    BAND_LEVELS,
    Forecasts,
    HorizonOutcomes,
    Losses,
    forecast_quantiles,
)
from llm_trader.evaluation.forecast.given_forecasts import Given, GivenForecasts
from llm_trader.evaluation.forecast.neighbour_search import Neighbours
from llm_trader.evaluation.forecast.skills import (
    ScoredForecasts,
    WalkForward,
    measure_direction,
    measure_regimes,
    measure_skills,
    score_forecasts,
    walk_forward,
)
from llm_trader.evaluation.plan import ForecastRule, Scale, StudyPlan
from llm_trader.evaluation.report import wording
from llm_trader.evaluation.result_files import Study, forecast_steps
from llm_trader.evaluation.results import SCHEMA_VERSION, Control, Kind, Metrics, Trials
from llm_trader.evaluation.significance import Verdict
from llm_trader.evaluation.study import StudyRun, origin_of
from llm_trader.evaluation.symbol_study import Findings, Subject, SymbolStudy
from llm_trader.evaluation.verdict.multiple_testing import Trial, daily_gains, queries_digest
from llm_trader.evaluation.verdict.verdicts import adjusted, forecast_verdict
from llm_trader.evaluation.workers import Task, run_tasks
from llm_trader.progress import Progress, StepCounter
from llm_trader.retrieval.forecast import quantile_places
from llm_trader.retrieval.scores import quantile_scores, sample_scores

SHUFFLED: Final = "given forecasts, shuffled outcomes"
PLANTED: Final = "given forecasts, planted knowledge"
# So much of the way to the outcome is hardly more than the best forecasts gain in a year.
_PLANTED_SHARE: Final = 0.1


def judge_forecasts(
    subject: Subject, given: GivenForecasts, plan: StudyPlan, run: StudyRun
) -> Study:
    """Judge the forecasts of a file; `plan` says what the served forecast beside them is."""
    started = time.monotonic()
    symbols = sorted(subject.dataset.points)
    study_tasks = [
        Task(judge_symbol, (subject, symbol, given.forecasts[symbol], given.name, plan))
        for symbol in symbols
    ]
    control_tasks = [
        *(Task(market_controls, (subject.dataset, symbol, plan)) for symbol in symbols),
        Task(simulated_controls, (subject.dataset.intraday, len(symbols), plan)),
    ]
    results = run_tasks([*study_tasks, *control_tasks], run.jobs, run.progress)
    judged: list[tuple[SymbolStudy, list[Control]]] = results[: len(symbols)]
    studies = [study for study, _ in judged]
    findings = Findings.joined([study.findings for study in studies])
    findings.skills = adjusted(findings.skills)
    controls = [controls for _, controls in judged] + results[len(symbols) :]
    verdict: Verdict = forecast_verdict(findings.skills, given.name)
    gains = {key: days for study in studies for key, days in study.gains[given.name].items()}
    run.ledger.add(
        Trial(
            label=given.name,
            configuration=given.digest,
            queries=queries_digest(subject.dataset, plan.step_ms),
            first_day_ms=subject.dataset.start_ms,
            gains=gains,
        )
    )
    so_far = len(run.ledger.configurations())
    metrics = Metrics(
        schema_version=SCHEMA_VERSION,
        command="judge",
        created_at=run.created_at,
        origin=origin_of(subject, plan, run),
        verdict=verdict,
        controls=[control for part in controls for control in part],
        trials=Trials(so_far=so_far, configurations=[], superior_p_value=None, tested=0),
        seconds=time.monotonic() - started,
        **msgspec.structs.asdict(findings),
    )
    steps = [part for study in studies for part in study.steps]
    return Study(replace(metrics, readings=wording.readings(metrics)), steps, [])


def judge_symbol(
    subject: Subject,
    symbol: str,
    given: Mapping[str, Given],
    label: str,
    plan: StudyPlan,
    progress: Progress,
) -> tuple[SymbolStudy, list[Control]]:
    """The findings about one symbol's forecasts, and their own controls."""
    dataset = subject.dataset
    points = dataset.points[symbol]
    times_ms = np.unique(np.concatenate([of_horizon.time_ms for of_horizon in given.values()]))
    queries = points.take(np.isin(points.timestamp_ms, times_ms))
    counter = StepCounter(progress, f"{symbol}, {label}", 2 * len(queries))
    walk = walk_forward(
        points,
        queries,
        plan.search,
        intraday=dataset.intraday,
        step_ms=plan.step_ms,
        seed=plan.seed,
        progress=counter,
    )
    served = score_forecasts(walk, {name: plan.rules[name] for name in given})
    scored = [_score(forecasts, given[forecasts.horizon]) for forecasts in served]
    comparisons = len(given) * len(dataset.points)
    findings = Findings()
    for forecasts in scored:
        findings.skills += measure_skills(forecasts, label, plan, comparisons=comparisons)
        findings.directions.append(measure_direction(forecasts, label, plan))
        findings.slices += measure_regimes(forecasts, plan)
        coverage = cover(forecasts)
        findings.bands.append(measure_band(forecasts, coverage, plan))
        findings.band_cells += measure_band_cells(forecasts, coverage)
    gains = {label: daily_gains(scored, dataset, plan.step_ms)}
    steps = [forecast_steps(label, forecasts) for forecasts in scored]
    study = SymbolStudy(symbol, findings, gains, steps, [])
    return study, _controls(walk, given, len(dataset.points), plan)


def _score(served: ScoredForecasts, given: Given) -> ScoredForecasts:
    """The given forecasts beside the references, all scored in the same way."""
    walk = served.walk
    values = _at_queries(walk, given)
    observed = served.forecasts.observed
    if given.levels is None:
        loss, references = sample_scores(values, observed), served.losses
        served_loss = served.losses.forecast
    else:
        loss = quantile_scores(values, given.levels, observed)
        served_loss, references = _reference_scores(served, given.levels)
    losses = references._replace(forecast=loss, potential=np.full(len(loss), np.nan))
    return served._replace(
        forecasts=_summary(values, given, served.forecasts), losses=losses, served=served_loss
    )


def _at_queries(walk: WalkForward, given: Given) -> Floats:
    """The values of each query, (n, members); NaN where nothing was given."""
    values = np.full((len(walk.queries), given.values.shape[1]), np.nan)
    forecast_rows = np.isin(given.time_ms, walk.queries.timestamp_ms)
    rows = np.searchsorted(walk.queries.timestamp_ms, given.time_ms[forecast_rows])
    values[rows] = given.values[forecast_rows]
    return values


def _reference_scores(served: ScoredForecasts, levels: Floats) -> tuple[Floats, Losses]:
    """The quantile scores of the served forecast, and of the references."""
    walk, name, rule = served.walk, served.horizon, served.rule
    without_neighbours = ForecastRule(weight_of_neighbours=0.0)

    def scores(neighbours: Neighbours, rule: ForecastRule, scale: Scale) -> Floats:
        outcomes = HorizonOutcomes(walk.points, walk.queries, walk.neighbours, name, scale)
        quantiles = forecast_quantiles(outcomes, neighbours, rule, levels)
        values = quantiles * outcomes.scale_pct[:, None]
        return quantile_scores(values, levels, outcomes.observed)

    served_loss = scores(walk.neighbours, rule, rule.scale)
    unknown = np.full(len(served_loss), np.nan)
    return served_loss, Losses(
        forecast=unknown,
        potential=unknown,
        random=scores(walk.random, rule, rule.scale),
        volatility_model=scores(walk.neighbours, without_neighbours, "expected"),
        rescaled_base=scores(walk.neighbours, without_neighbours, "last_24h"),
        base=scores(walk.neighbours, without_neighbours, "none"),
    )


def _summary(values: Floats, given: Given, served: Forecasts) -> Forecasts:
    """What bands and directions are judged by; NaN where the levels do not reach so far."""
    n, members = values.shape
    p_up = np.full(n, np.nan)
    if given.levels is None:
        forecast_rows = np.isfinite(values).all(axis=1)
        p_up = np.where(forecast_rows, (values > 0).mean(axis=1), np.nan)
        p10, median, p90 = values[:, quantile_places(BAND_LEVELS, members)].T
    else:
        columns = []
        for level in BAND_LEVELS:
            nearest = int(np.abs(given.levels - level).argmin())
            reached = abs(float(given.levels[nearest]) - level) < 1e-9
            columns.append(values[:, nearest] if reached else np.full(n, np.nan))
        p10, median, p90 = columns
    return served._replace(p_up=p_up, p10=p10, median=median, p90=p90)


def _controls(
    walk: WalkForward, given: Mapping[str, Given], symbols: int, plan: StudyPlan
) -> list[Control]:
    """A negative and a positive control made from the given forecasts."""
    relative, observed, scale = {}, {}, {}
    for name, of_horizon in given.items():
        outcomes = HorizonOutcomes(walk.points, walk.queries, walk.neighbours, name)
        values = _at_queries(walk, of_horizon) / outcomes.scale_pct[:, None]
        forecast_rows = np.isfinite(values).all(axis=1) & np.isfinite(outcomes.observed)
        relative[name], scale[name] = values[forecast_rows], outcomes.scale_pct[forecast_rows]
        observed[name] = outcomes.observed[forecast_rows] / scale[name]

    def score(name: str, values: Floats, moves: Floats) -> Floats:
        levels = given[name].levels
        return (
            sample_scores(values, moves)
            if levels is None
            else quantile_scores(values, levels, moves)
        )

    def shuffled(seed: int, horizons: Sequence[str]) -> dict[str, Floats]:
        losses = {}
        for name in horizons:
            rng = np.random.default_rng(seed)
            rows: Rows = rng.permutation(len(scale[name]))
            others: Rows = rng.permutation(len(scale[name]))
            moves = observed[name][rows]
            pair = score(name, relative[name], moves), score(name, relative[name][others], moves)
            losses[name] = np.stack(pair) * scale[name][rows]
        return losses

    def planted(seed: int, horizons: Sequence[str]) -> dict[str, Floats]:
        losses = {}
        for name in horizons:
            values, moves = relative[name], observed[name]
            better = values + _PLANTED_SHARE * (moves[:, None] - values)
            losses[name] = np.stack([score(name, v, moves) for v in (better, values)]) * scale[name]
        return losses

    negatives, horizons = symbols * len(given), list(given)
    controls: list[tuple[str, Kind, LossesOf]] = [
        (SHUFFLED, "negative", shuffled),
        (PLANTED, "positive", planted),
    ]
    symbol = walk.points.symbol
    return [
        control
        for name, kind, losses_of in controls
        for control in controls_of(
            name, kind, symbol, judge(losses_of, horizons, kind, negatives, plan.step_ms, plan.seed)
        )
    ]
