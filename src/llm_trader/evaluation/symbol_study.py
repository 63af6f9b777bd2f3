"""One symbol studied from all sides: the work of one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from llm_trader.embedding.state import StateSpace
from llm_trader.evaluation import significance
from llm_trader.evaluation.backtest.strategies import (
    Backtest,
    GivenArm,
    Market,
    compare_arms,
    pair_decisions,
    run_backtest,
)
from llm_trader.evaluation.conformal.bands import cover, measure_band, measure_band_cells
from llm_trader.evaluation.controls.negative_controls import undirected_skills
from llm_trader.evaluation.controls.probes import probe_future_canary, probe_truncation
from llm_trader.evaluation.dataset import Dataset
from llm_trader.evaluation.forecast.neighbour_search import reweight_features
from llm_trader.evaluation.forecast.probabilities import measure_barriers, measure_rises
from llm_trader.evaluation.forecast.skills import (
    ScoredForecasts,
    WalkForward,
    measure_direction,
    measure_regimes,
    measure_skills,
    score_forecasts,
    walk_forward,
)
from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.result_files import (
    Steps,
    drift_curves,
    equity_curve,
    forecast_steps,
    similarity_histogram,
)
from llm_trader.evaluation.results import (
    Arm,
    Band,
    BandCell,
    Configuration,
    Curve,
    Direction,
    Histogram,
    Paired,
    Probability,
    Probe,
    RegimeSkill,
    Skill,
    UndirectedSkill,
)
from llm_trader.evaluation.verdict.multiple_testing import Gains, daily_gains
from llm_trader.index.ingestion import Spaces
from llm_trader.market.store import MarketStore
from llm_trader.progress import Progress, StepCounter, no_progress
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS
from llm_trader.timeframe import HOUR_MS, Millis

# Configurations are compared by queries an hour apart: four times as many tell little more.
TRIAL_STEP_MS: Final = HOUR_MS


@dataclass(frozen=True, slots=True)
class Subject:
    """What is evaluated: labelled states, and the store with the candles they are made from."""

    dataset: Dataset
    store: Path


class Arms(NamedTuple):
    """The strategies to trade, which of them is the baseline, how many trials there have been, and
    on how many symbols the strategies are compared.

    `given` are decisions made before, by symbol and arm, by who may know what happened before
    `cutoff_ms`.
    """

    names: tuple[str, ...]
    baseline: str
    trials: int
    symbols: int
    given: Mapping[str, Mapping[str, GivenArm]] = {}
    cutoff_ms: Millis | None = None


class Findings(msgspec.Struct, kw_only=True):
    """The findings about one symbol, named as in `Metrics`.

    `skills` and `directions` are of every variant, the rest of the main one.
    """

    skills: list[Skill] = []
    undirected: list[UndirectedSkill] = []
    directions: list[Direction] = []
    probabilities: list[Probability] = []
    bands: list[Band] = []
    band_cells: list[BandCell] = []
    arms: list[Arm] = []
    paired: list[Paired] = []
    probes: list[Probe] = []
    slices: list[RegimeSkill] = []
    histograms: list[Histogram] = []
    curves: list[Curve] = []

    @classmethod
    def joined(cls, parts: Sequence[Findings]) -> Findings:
        """The findings about several symbols, one after the other."""
        return cls(
            **{
                name: [finding for part in parts for finding in getattr(part, name)]
                for name in cls.__struct_fields__
            }
        )


class SymbolStudy(NamedTuple):
    """One symbol's findings, the gains of each variant for its trial, and rows for tables."""

    symbol: str
    findings: Findings
    gains: dict[str, Gains]
    steps: list[Steps]
    backtests: list[Backtest]


class Sweep(NamedTuple):
    """One symbol's skills by further configurations, and the gains of each for its trial."""

    configurations: list[Configuration]
    gains: dict[str, Gains]


def study_symbol(
    subject: Subject,
    symbol: str,
    variants: Mapping[str, StudyPlan],
    main: str,
    arms: Arms,
    progress: Progress,
) -> SymbolStudy:
    """Compare the variants on the queries that all can answer, and look closer at `main`."""
    dataset = subject.dataset
    scored = {
        label: _score_symbol(dataset, symbol, plan, plan.step_ms, f"{symbol}, {label}", progress)
        for label, plan in variants.items()
    }
    gains = _keep_common_queries(scored, variants, dataset)
    comparisons = sum(map(len, scored.values())) * len(dataset.points)
    findings = Findings()
    for label, variant in scored.items():
        plan = variants[label]
        for forecasts in variant:
            findings.skills += measure_skills(forecasts, label, plan, comparisons=comparisons)
            # Without neighbours nothing names a direction.
            if forecasts.rule.weight_of_neighbours:
                findings.directions.append(measure_direction(forecasts, label, plan))
    progress(f"{symbol}, looking closer", 0, 1)
    _look_closer(scored[main], variants[main], findings)
    walk = scored[main][0].walk
    backtests = _trade(subject, walk, variants[main], arms, findings)
    spaces = Spaces(StateSpace(dataset.intraday), rules=dataset.rules)
    with MarketStore.open(subject.store) as store:
        findings.probes = [
            probe_future_canary(walk, variants[main]),
            probe_truncation(walk, variants[main], spaces, store),
        ]
    progress(f"{symbol}, looking closer", 1, 1)
    steps = [forecast_steps(label, part) for label, parts in scored.items() for part in parts]
    return SymbolStudy(symbol, findings, gains, steps, backtests)


def study_sweep(
    subject: Subject, symbol: str, variants: Mapping[str, StudyPlan], progress: Progress
) -> Sweep:
    """Skills of one symbol by other configurations, by queries `TRIAL_STEP_MS` apart.

    All are against the volatility model, on the queries that all can answer.
    """
    scored = {}
    for done, (label, plan) in enumerate(variants.items()):
        progress(f"{symbol}, sweep", done, len(variants))
        scored[label] = _score_symbol(subject.dataset, symbol, plan, trial_step_ms(plan))
    gains = _keep_common_queries(scored, variants, subject.dataset)
    progress(f"{symbol}, sweep", len(variants), len(variants))
    configurations = [
        Configuration(
            label=label,
            symbol=symbol,
            horizon=forecasts.horizon,
            skill=significance.skill_interval(
                forecasts.losses.forecast,
                forecasts.losses.volatility_model,
                forecasts.block,
                variants[label].reps,
                variants[label].seed,
            ),
        )
        for label, variant in scored.items()
        for forecasts in variant
    ]
    return Sweep(configurations, gains)


def trial_step_ms(plan: StudyPlan) -> Millis:
    return max(plan.step_ms, TRIAL_STEP_MS)


def _score_symbol(
    dataset: Dataset,
    symbol: str,
    plan: StudyPlan,
    step_ms: Millis,
    label: str = "",
    progress: Progress = no_progress,
) -> list[ScoredForecasts]:
    space, weights = StateSpace(dataset.intraday), plan.search.feature_weights
    points, queries = (
        reweight_features(table, space, weights)
        for table in (dataset.points[symbol], dataset.queries(symbol, step_ms))
    )
    walk = walk_forward(
        points,
        queries,
        plan.search,
        intraday=dataset.intraday,
        step_ms=step_ms,
        seed=plan.seed,
        progress=StepCounter(progress, label, 2 * len(queries)),
    )
    return score_forecasts(walk, plan.rules, plan.least_similarity)


def _keep_common_queries(
    scored: Mapping[str, list[ScoredForecasts]], variants: Mapping[str, StudyPlan], dataset: Dataset
) -> dict[str, Gains]:
    """Leave out the queries that a variant cannot answer, so that all have the same.

    Returns the gains of each variant for its trial, on all queries that it can answer: what else
    is compared must not change a trial.
    """
    gains = {
        label: daily_gains(variant, dataset, trial_step_ms(variants[label]))
        for label, variant in scored.items()
    }
    for i, horizon in enumerate(zip(*scored.values(), strict=True)):
        losses = [forecasts.losses.forecast for forecasts in horizon]
        common = np.asarray(np.isfinite(losses).all(axis=0))
        for variant in scored.values():
            variant[i] = variant[i].where(common)
    return gains


def _look_closer(scored: list[ScoredForecasts], plan: StudyPlan, findings: Findings) -> None:
    walk = scored[0].walk
    findings.undirected = undirected_skills(walk, plan)
    findings.probabilities = [
        *(measure_rises(forecasts, plan) for forecasts in scored),
        *measure_barriers(walk, plan),
    ]
    findings.slices = [
        regime for forecasts in scored for regime in measure_regimes(forecasts, plan)
    ]
    coverages = {forecasts.horizon: cover(forecasts) for forecasts in scored}
    for forecasts, coverage in zip(scored, coverages.values(), strict=True):
        findings.bands.append(measure_band(forecasts, coverage, plan))
        findings.band_cells += measure_band_cells(forecasts, coverage)
    findings.histograms = [similarity_histogram(walk)]
    findings.curves = drift_curves(walk, coverages, plan.aggregator.horizon)


def _trade(
    subject: Subject, walk: WalkForward, plan: StudyPlan, arms: Arms, findings: Findings
) -> list[Backtest]:
    if not arms.names:
        return []
    symbol, times_ms = walk.points.symbol, walk.queries.timestamp_ms
    end_ms = int(times_ms[-1]) + LONGEST_HORIZON_MS
    with MarketStore.open(subject.store) as store:
        history = store.stored_history(symbol, walk.intraday, int(times_ms[0]), end_ms).decode()
    market = Market(history.intraday, history.funding)
    given = arms.given.get(symbol, {})
    backtests = [run_backtest(name, walk, market, plan, given.get(name)) for name in arms.names]
    findings.arms = compare_arms(
        symbol, backtests, arms.baseline, plan, trials=arms.trials, symbols=arms.symbols
    )
    if given:
        findings.paired = pair_decisions(
            symbol, backtests, arms.baseline, market, plan, arms.cutoff_ms
        )
    findings.curves += [
        equity_curve(symbol, backtest.name, backtest.simulation) for backtest in backtests
    ]
    return backtests
