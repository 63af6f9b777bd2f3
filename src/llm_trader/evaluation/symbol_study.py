"""One symbol looked at from all sides: the work of one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from llm_trader.embedding.state import StateSpace
from llm_trader.evaluation import daily_curves, significance
from llm_trader.evaluation.backtest.strategies import Market, Traded, arms_of, trade
from llm_trader.evaluation.conformal.coverage import band_of, inside_bands
from llm_trader.evaluation.controls import probes
from llm_trader.evaluation.csv_tables import Steps, steps_of
from llm_trader.evaluation.dataset import Dataset
from llm_trader.evaluation.forecast.feature_weights import reweighted
from llm_trader.evaluation.forecast.neighbour_search import Counted
from llm_trader.evaluation.forecast.probabilities import barriers, rises
from llm_trader.evaluation.forecast.regimes import slices_of
from llm_trader.evaluation.forecast.skills import (
    Scored,
    Walk,
    direction_of,
    score,
    skills_of,
    undirected,
    walk_of,
)
from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.results import (
    Arm,
    Band,
    Configuration,
    Curve,
    Direction,
    Histogram,
    Probability,
    Probe,
    RegimeSkill,
    Skill,
    UndirectedSkill,
)
from llm_trader.evaluation.verdict.multiple_testing import daily_gains
from llm_trader.market.store import MarketStore
from llm_trader.progress import Progress
from llm_trader.snapshot.outcome import HORIZONS, LONGEST_HORIZON_MS
from llm_trader.timeframe import HOUR_MS, Millis

# Configurations are compared by queries an hour apart: four times as many tell little more.
TRIAL_STEP_MS: Final = HOUR_MS

Gains = dict[str, list[float | None]]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is evaluated: labelled states, and the store with the candles they are made of."""

    dataset: Dataset
    store: Path


class Arms(NamedTuple):
    """Ways to decide that are traded, by name, which of them is the baseline, how much has been
    tried in all, and on how many symbols.
    """

    names: tuple[str, ...]
    baseline: str
    trials: int
    symbols: int


class Findings(msgspec.Struct, kw_only=True):
    """What is said of one symbol; `skills` and `directions` of every variant, the rest of one."""

    skills: list[Skill] = []
    directions: list[Direction] = []
    probabilities: list[Probability] = []
    undirected: list[UndirectedSkill] = []
    bands: list[Band] = []
    slices: list[RegimeSkill] = []
    arms: list[Arm] = []
    probes: list[Probe] = []
    histograms: list[Histogram] = []
    curves: list[Curve] = []

    @classmethod
    def joined(cls, parts: Sequence[Findings]) -> Findings:
        """Those of several symbols, one after the other."""
        return cls(
            **{
                name: [one for part in parts for one in getattr(part, name)]
                for name in cls.__struct_fields__
            }
        )


class Examined(NamedTuple):
    """Of one symbol: findings, the gains of each variant for its trial, rows for tables."""

    symbol: str
    findings: Findings
    gains: dict[str, Gains]
    steps: list[Steps]
    traded: list[Traded]


def examine(
    subject: Subject,
    symbol: str,
    variants: Mapping[str, StudyPlan],
    main: str,
    arms: Arms,
    progress: Progress,
) -> Examined:
    """Look at all variants on the queries that each of them can answer, and at `main` closely."""
    scored = {}
    for label, plan in variants.items():
        told = partial(progress, f"{symbol}, {label}")
        scored[label] = _scored(subject.dataset, symbol, plan, plan.step_ms, told)
    gains = {label: _gains(of, variants[label], subject.dataset) for label, of in scored.items()}
    _keep_common(list(scored.values()))
    comparisons = sum(len(of) for of in scored.values()) * len(subject.dataset.points)
    found = Findings()
    for label, of in scored.items():
        chance = {"reps": variants[label].reps, "seed": variants[label].seed}
        found.skills += [
            skill
            for one in of
            for skill in skills_of(one, label, comparisons=comparisons, **chance)
        ]
        # Without neighbours nothing names a direction.
        found.directions += [
            direction_of(one, label, **chance) for one in of if one.rule.neighbour_share
        ]
    plan, of = variants[main], scored[main]
    progress(f"{symbol}, looking closer", 0, 1)
    _look_closer(of, plan, found)
    found.undirected = [
        UndirectedSkill(
            symbol=symbol,
            horizon=name,
            skill=significance.skill_interval(
                forecast, base, of[0].walk.block(name), plan.reps, plan.seed
            ),
        )
        for name, (forecast, base) in undirected(of[0].walk, plan.rules, plan.seed).items()
    ]
    traded = _trade(subject, of[0].walk, plan, arms, found)
    _probe(subject, of[0].walk, plan, found)
    progress(f"{symbol}, looking closer", 1, 1)
    return Examined(
        symbol,
        found,
        gains,
        [steps_of(label, one) for label, variant in scored.items() for one in variant],
        traded,
    )


def try_variants(
    subject: Subject, symbol: str, variants: Mapping[str, StudyPlan], progress: Progress
) -> tuple[list[Configuration], dict[str, Gains]]:
    """Skills of one symbol by other configurations, by queries `TRIAL_STEP_MS` apart.

    All against the base rate treated as the first of them treats it, on the queries that all can
    answer: its own base rate is a lower bar for a configuration that makes that worse.
    """
    scored = {}
    for done, (label, plan) in enumerate(variants.items()):
        progress(f"{symbol}, sweep", done, len(variants))
        step_ms = trial_step_ms(plan)
        scored[label] = _scored(subject.dataset, symbol, plan, step_ms, lambda done, total: None)
    gains = {label: _gains(of, variants[label], subject.dataset) for label, of in scored.items()}
    _keep_common(list(scored.values()))
    plain = next(iter(scored.values()))
    progress(f"{symbol}, sweep", len(variants), len(variants))
    return [
        _configuration(one, beside, label, variants[label])
        for label, of in scored.items()
        for one, beside in zip(of, plain, strict=True)
    ], gains


def trial_step_ms(plan: StudyPlan) -> Millis:
    return max(plan.step_ms, TRIAL_STEP_MS)


def _scored(
    dataset: Dataset,
    symbol: str,
    plan: StudyPlan,
    step_ms: Millis,
    told: Callable[[int, int], None],
) -> list[Scored]:
    points, queries = dataset.points[symbol], dataset.queries(symbol, step_ms)
    space, search = StateSpace(dataset.intraday), plan.search
    points, queries = (reweighted(of, space, search.feature_weights) for of in (points, queries))
    walk = walk_of(
        points,
        queries,
        search,
        intraday=dataset.intraday,
        step_ms=step_ms,
        seed=plan.seed,
        progress=Counted(told, 2 * len(queries)),
    )
    return score(walk, plan.rules, plan.least_similarity)


def _keep_common(variants: list[list[Scored]]) -> None:
    """Variants are compared by the same queries: what one cannot answer counts for none."""
    for at, of_all in enumerate(zip(*variants, strict=True)):
        common = np.asarray(np.isfinite([of.losses.forecast for of in of_all]).all(axis=0))
        for scored in variants:
            scored[at] = scored[at].kept(common)


def _look_closer(of: list[Scored], plan: StudyPlan, found: Findings) -> None:
    walk, chance = of[0].walk, {"reps": plan.reps, "seed": plan.seed}
    longest = plan.rules[max(plan.rules, key=HORIZONS.__getitem__)]
    found.probabilities = [rises(one, **chance) for one in of] + barriers(walk, longest, **chance)
    found.slices = [one for judged in of for one in slices_of(judged, **chance)]
    covered = {one.horizon: inside_bands(walk, one.horizon) for one in of}
    found.bands = [band_of(walk, name, inside, **chance) for name, inside in covered.items()]
    found.histograms = [daily_curves.histogram(walk)]
    found.curves = daily_curves.drift(walk, covered, plan.aggregator.horizon)


def _trade(
    subject: Subject, walk: Walk, plan: StudyPlan, arms: Arms, found: Findings
) -> list[Traded]:
    if not arms.names:
        return []
    symbol = walk.points.symbol
    start_ms = int(walk.queries.timestamp_ms[0])
    end_ms = int(walk.queries.timestamp_ms[-1]) + LONGEST_HORIZON_MS
    with MarketStore.open(subject.store) as store:
        history = store.history(symbol, walk.intraday, start_ms, end_ms)
    market = Market(history.intraday, history.funding)
    traded = [trade(name, walk, market, plan) for name in arms.names]
    found.arms = arms_of(
        symbol, traded, arms.baseline, trials=arms.trials, symbols=arms.symbols, plan=plan
    )
    found.curves += [daily_curves.equity(symbol, of.name, of.simulation) for of in traded]
    return traded


def _probe(subject: Subject, walk: Walk, plan: StudyPlan, found: Findings) -> None:
    space = StateSpace(subject.dataset.intraday)
    canary = probes.future_canary(walk, plan.search, plan.rules, space, plan.seed)
    with MarketStore.open(subject.store) as store:
        found.probes = [canary, probes.truncation(walk, plan.search, space, store, plan.seed)]


def _gains(scored: list[Scored], plan: StudyPlan, dataset: Dataset) -> Gains:
    return daily_gains(scored, dataset, trial_step_ms(plan))


def _configuration(scored: Scored, beside: Scored, label: str, plan: StudyPlan) -> Configuration:
    """Against the base rate treated as `beside` treats it."""
    base = beside.losses.base_alike
    return Configuration(
        label=label,
        symbol=scored.walk.points.symbol,
        horizon=scored.horizon,
        skill=significance.skill_interval(
            scored.losses.forecast, base, scored.block, plan.reps, plan.seed
        ),
    )
