"""Runs the controls: data with a known answer, evaluated like any other.

Skill is against the volatility model, as in the verdict. Each interval is widened for the number of
controls of a run, or chance alone would stop every other run (Bonferroni's rule). One that fails is
repeated with fresh seeds and condemns the evaluation only if it fails each time: a leak does, and
chance does not. That makes fewer false alarms, never more.
Skill below zero is no failure: in a short window even a random walk returns to its mean, and
neighbours that show it do harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from msgspec.structs import replace as replace_fields

from llm_trader.arrays import Floats
from llm_trader.embedding.state import StateSpace
from llm_trader.evaluation import significance
from llm_trader.evaluation.controls.control_data import (
    PLANTED_REVERSAL,
    SYMBOL,
    random_signs,
    random_vectors,
    shifted_outcomes,
    shuffled_outcomes,
    simulated_dataset,
    simulated_points,
    wrong_symbol,
)
from llm_trader.evaluation.dataset import WARM_UP_DAYS, Dataset
from llm_trader.evaluation.forecast.ensembles import HorizonOutcomes, forecast_and_model_losses
from llm_trader.evaluation.forecast.neighbour_search import find_neighbours, reweight_features
from llm_trader.evaluation.forecast.skills import WalkForward, rows_per_block
from llm_trader.evaluation.plan import ForecastRule, Search, StudyPlan
from llm_trader.evaluation.results import Control, Kind, UndirectedSkill
from llm_trader.index.ingestion import Spaces
from llm_trader.index.points import STATE, PointTable
from llm_trader.progress import Progress
from llm_trader.retrieval.intervals import Interval
from llm_trader.timeframe import DAY_MS, HOUR_MS, Millis, Timeframe

# An hour between queries: four times as many overlap, and say little more.
_MIN_STEP_MS: Final = HOUR_MS
_HORIZONS: Final = ("1h", "4h")

# One alteration may by chance make some states look better than others, and that lasts for a whole
# lookback. Queries take turns among four.
_ALTERATIONS: Final = 4

# A leak shows each time. Seeds a user may choose lie far from those of the repetitions.
_ATTEMPTS: Final = 3
_SEED_STEP: Final = 1_000_003

# The tails of such wide intervals need many resamples.
_REPS: Final = 5000

_SIMULATED_DAYS: Final = 200
_SIMULATED_LOOKBACK_DAYS: Final = 90
_SIMULATED_SYMBOL: Final = "simulated"
NO_EDGE: Final = "market without an edge"
PLANTED: Final = "planted pattern"
# Each is made from a symbol's own points, another symbol's, and a seed.
_Alter = Callable[[PointTable, PointTable, int], PointTable]
_ALTERED: Final[dict[str, _Alter]] = {
    "shuffled outcomes": lambda points, other, seed: shuffled_outcomes(points, seed),
    "time-shifted outcomes": lambda points, other, seed: shifted_outcomes(points, seed),
    "random vectors": lambda points, other, seed: random_vectors(points, seed),
    "wrong symbol": lambda points, other, seed: wrong_symbol(points, other, seed),
}
ALTERATION_NAMES: Final = tuple(_ALTERED)


def market_controls(
    dataset: Dataset, symbol: str, plan: StudyPlan, progress: Progress
) -> list[Control]:
    """The negative controls made from one symbol's own states."""
    space, weights = StateSpace(dataset.intraday), plan.search.feature_weights
    points = reweight_features(dataset.points[symbol], space, weights)
    other = _other_points(dataset, symbol)
    label = f"{symbol}, controls"
    controls = []
    for done, (name, alter) in enumerate(_ALTERED.items()):
        progress(label, done, len(_ALTERED))

        def altered(seed: int, alter: _Alter = alter) -> list[Dataset]:
            seeds = range(_ALTERATIONS * seed, _ALTERATIONS * (seed + 1))
            return [replace(dataset, points={symbol: alter(points, other, nth)}) for nth in seeds]

        controls += _evaluate(altered, symbol, plan, plan.search, name, len(dataset.points))
    progress(label, len(_ALTERED), len(_ALTERED))
    return controls


def simulated_controls(
    intraday: Timeframe, symbols: int, plan: StudyPlan, progress: Progress
) -> list[Control]:
    """A simulated market without an edge, and one with a pattern planted into its candles.

    States are compared by their numbers, whatever the plan says: there are no texts, and random
    neighbours would never find the pattern.
    """
    lookback_days = min(plan.search.lookback_days, _SIMULATED_LOOKBACK_DAYS)
    search = replace_fields(plan.search, vector=STATE, lookback_days=lookback_days)
    controls = []
    for done, (name, reversal) in enumerate({NO_EDGE: 0.0, PLANTED: PLANTED_REVERSAL}.items()):
        progress("simulated controls", done, 2)

        def simulated(seed: int, reversal: float = reversal) -> list[Dataset]:
            dataset = simulated_dataset(
                Spaces(StateSpace(intraday)),
                days=_SIMULATED_DAYS,
                lookback_days=lookback_days,
                seed=seed,
                interval_ms=plan.step_ms,
                reversal=reversal,
            )
            return [dataset]

        controls += _evaluate(simulated, SYMBOL, plan, search, name, symbols)
    progress("simulated controls", 2, 2)
    return [replace_fields(control, symbol=_SIMULATED_SYMBOL) for control in controls]


def undirected_skills(walk: WalkForward, plan: StudyPlan) -> list[UndirectedSkill]:
    """Skills of the same neighbours on outcomes whose signs are random, by stretches of time."""
    walk = walk.at_steps_of(_MIN_STEP_MS)
    points = random_signs(walk.points, plan.seed)
    queries = points.take(np.searchsorted(points.timestamp_ms, walk.queries.timestamp_ms))
    skills = []
    for name, rule in plan.rules.items():
        outcomes = HorizonOutcomes(points, queries, walk.neighbours, name, rule.scale)
        losses = forecast_and_model_losses(outcomes, walk.neighbours, rule)
        interval = significance.skill_interval(*losses, walk.block(name), plan.reps, plan.seed)
        skills.append(UndirectedSkill(symbol=points.symbol, horizon=name, skill=interval))
    return skills


def _evaluate(
    datasets_of: Callable[[int], Sequence[Dataset]],
    symbol: str,
    plan: StudyPlan,
    search: Search,
    name: str,
    symbols: int,
) -> list[Control]:
    """Walk through altered data, made with a seed, and see whether only the skill that is there is
    found.
    """
    step_ms = max(plan.step_ms, _MIN_STEP_MS)
    horizons = [horizon for horizon in plan.rules if horizon in _HORIZONS] or list(plan.rules)[:1]
    negatives = len(horizons) * (len(_ALTERED) * symbols + 1)

    def losses_of(seed: int, open_horizons: Sequence[str]) -> dict[str, Floats]:
        rules = {horizon: plan.rules[horizon] for horizon in open_horizons}
        return _losses(datasets_of(seed), symbol, search, rules, step_ms, seed)

    kind: Kind = "positive" if name == PLANTED else "negative"
    judged = judge(losses_of, horizons, kind, negatives, step_ms, plan.seed)
    return controls_of(name, kind, symbol, judged)


# The losses (2, n) of each horizon that a seed gives, of the forecast and of its reference.
LossesOf = Callable[[int, Sequence[str]], Mapping[str, Floats]]


class Judged(NamedTuple):
    """The last of the `attempts` at a control: its interval, and the wide one that decides."""

    skill: Interval
    wide: Interval
    passed: bool
    attempts: int


def judge(
    losses_of: LossesOf,
    horizons: Sequence[str],
    kind: Kind,
    negatives: int,
    step_ms: Millis,
    seed: int,
) -> dict[str, Judged]:
    """Judge one of so many `negatives` by the losses (2, n) that a seed gives, forecast first.

    Horizons at which it fails are tried again with other seeds. All negative controls of a run pass
    in 19 of 20 runs, or in more.
    """
    level = 1 - significance.SIGNIFICANCE_LEVEL / negatives
    judged: dict[str, Judged] = {}
    for attempt in range(_ATTEMPTS):
        failing = [name for name in horizons if name not in judged or not judged[name].passed]
        if not failing:
            break
        fresh_seed = seed + attempt * _SEED_STEP
        for horizon, losses in losses_of(fresh_seed, failing).items():
            forecast, model = losses
            resampling = forecast, model, rows_per_block(horizon, step_ms), _REPS, fresh_seed
            wide = significance.skill_interval(*resampling, level=level)
            has_skill = significance.verdict(wide) == "better"
            passed = has_skill == (kind == "positive")
            skill = significance.skill_interval(*resampling)
            judged[horizon] = Judged(skill, wide, passed, attempt + 1)
    return judged


def controls_of(name: str, kind: Kind, symbol: str, judged: Mapping[str, Judged]) -> list[Control]:
    """The results of a control by horizon."""
    return [
        Control(name=name, kind=kind, symbol=symbol, horizon=horizon, **result._asdict())
        for horizon, result in judged.items()
    ]


def _losses(
    datasets: Sequence[Dataset],
    symbol: str,
    search: Search,
    rules: Mapping[str, ForecastRule],
    step_ms: Millis,
    seed: int,
) -> dict[str, Floats]:
    """Losses of n queries, each by one of the data sets in turn, as an array (2, n) by horizon.

    The first row is of the forecast, the second of the volatility model.
    """
    n = len(datasets[0].queries(symbol, step_ms))
    losses = {name: np.full((2, n), np.nan) for name in rules}
    for nth, dataset in enumerate(datasets):
        points, turn = dataset.points[symbol], slice(nth, None, len(datasets))
        queries = dataset.queries(symbol, step_ms).take(turn)
        neighbours = find_neighbours(points, queries, search, seed=seed)
        for name, rule in rules.items():
            outcomes = HorizonOutcomes(points, queries, neighbours, name, rule.scale)
            losses[name][:, turn] = forecast_and_model_losses(outcomes, neighbours, rule)
    return losses


def _other_points(dataset: Dataset, symbol: str) -> PointTable:
    """Another symbol's points; without one, states of a simulated market at the same times."""
    for other in sorted(dataset.points):
        if other != symbol:
            return dataset.points[other]
    points = dataset.points[symbol]
    step_ms = int(np.diff(points.timestamp_ms).min(initial=DAY_MS))
    days = -(-len(points) * step_ms // DAY_MS) + WARM_UP_DAYS
    spaces = Spaces(StateSpace(dataset.intraday))
    states = simulated_points(spaces, days=days, seed=0, interval_ms=step_ms).vectors[STATE]
    return replace(points, vectors={**points.vectors, STATE: states[: len(points)]})
