"""The evaluation of data of which the answer is known, in the way of all other data.

Skill is against the base rate treated alike, as in the verdict. Each interval is widened for the
number of controls of a run, or chance alone would stop every other one (Bonferroni's rule). Skill
below zero is no failure: in a short window even a random walk returns to its mean, and neighbours
that show it do harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, Literal

import numpy as np
from msgspec.structs import replace as replaced

from llm_trader.arrays import Floats
from llm_trader.embedding.state import StateSpace
from llm_trader.evaluation import significance
from llm_trader.evaluation.controls.alterations import (
    random_vectors,
    shifted_outcomes,
    shuffled_outcomes,
    wrong_symbol,
)
from llm_trader.evaluation.controls.simulated_markets import (
    PLANTED_REVERSAL,
    SYMBOL,
    simulated_dataset,
    simulated_points,
)
from llm_trader.evaluation.dataset import WARM_UP_DAYS, Dataset
from llm_trader.evaluation.forecast.ensembles import ForecastRule, horizon_of, losses_beside_base
from llm_trader.evaluation.forecast.feature_weights import reweighted
from llm_trader.evaluation.forecast.neighbour_search import Search, find_neighbours
from llm_trader.evaluation.forecast.skills import block_of
from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.results import Control
from llm_trader.evaluation.significance import SIGNIFICANCE_LEVEL
from llm_trader.index.ingestion import Spaces
from llm_trader.index.points import STATE, PointTable
from llm_trader.progress import Progress
from llm_trader.timeframe import DAY_MS, HOUR_MS, Millis, Timeframe

_STEP_MS: Final = HOUR_MS
_JUDGED: Final = ("1h", "4h")

# An alteration may by chance have made some states look better than others, and that lasts as long
# as they are looked back at. Queries take turns among several.
_ALTERATIONS: Final = 4

# The tails of so wide intervals need many resamples.
_REPS: Final = 5000

_SIMULATED_DAYS: Final = 200
_SIMULATED_LOOKBACK_DAYS: Final = 90
_SIMULATED_SYMBOL: Final = "simulated"
NO_EDGE: Final = "market without an edge"
PLANTED: Final = "planted pattern"
# From a symbol's own points, another's, and a seed.
_MADE: Final[dict[str, Callable[[PointTable, PointTable, int], PointTable]]] = {
    "shuffled outcomes": lambda points, other, seed: shuffled_outcomes(points, seed),
    "time-shifted outcomes": lambda points, other, seed: shifted_outcomes(points, seed),
    "random vectors": lambda points, other, seed: random_vectors(points, seed),
    "wrong symbol": lambda points, other, seed: wrong_symbol(points, other, seed),
}
OF_A_SYMBOL: Final = tuple(_MADE)


def market_controls(
    dataset: Dataset, symbol: str, plan: StudyPlan, progress: Progress
) -> list[Control]:
    """The negative controls that are made of one symbol's own states."""
    space, weights = StateSpace(dataset.intraday), plan.search.feature_weights
    points, other = reweighted(dataset.points[symbol], space, weights), _other(dataset, symbol)
    found = []
    for done, (name, make) in enumerate(_MADE.items()):
        progress(f"{symbol}, controls", done, len(OF_A_SYMBOL))
        altered = [
            replace(dataset, points={symbol: make(points, other, _ALTERATIONS * plan.seed + nth)})
            for nth in range(_ALTERATIONS)
        ]
        found += _judge(altered, symbol, plan, plan.search, name, len(dataset.points))
    progress(f"{symbol}, controls", len(OF_A_SYMBOL), len(OF_A_SYMBOL))
    return found


def simulated_controls(
    intraday: Timeframe, symbols: int, plan: StudyPlan, progress: Progress
) -> list[Control]:
    """A simulated market without an edge, and one with a pattern planted into its candles.

    States are compared by their numbers, whatever the plan says: there are no texts, and neighbours
    drawn by chance would never find the pattern.
    """
    search = replaced(
        plan.search,
        vector=STATE,
        lookback_days=min(plan.search.lookback_days, _SIMULATED_LOOKBACK_DAYS),
    )
    found = []
    for done, (name, reversal) in enumerate({NO_EDGE: 0.0, PLANTED: PLANTED_REVERSAL}.items()):
        progress("simulated controls", done, 2)
        made = simulated_dataset(
            Spaces(StateSpace(intraday)),
            days=_SIMULATED_DAYS,
            lookback_days=search.lookback_days,
            seed=plan.seed,
            interval_ms=plan.step_ms,
            reversal=reversal,
        )
        found += _judge([made], SYMBOL, plan, search, name, symbols)
    progress("simulated controls", 2, 2)
    return [replaced(one, symbol=_SIMULATED_SYMBOL) for one in found]


def _judge(
    altered: list[Dataset], symbol: str, plan: StudyPlan, search: Search, name: str, symbols: int
) -> list[Control]:
    """Walk through altered data, and see whether what is known of them is found."""
    step_ms = max(plan.step_ms, _STEP_MS)
    horizons = [of for of in plan.rules if of in _JUDGED] or list(plan.rules)[:1]
    rules = {horizon: plan.rules[horizon] for horizon in horizons}
    negatives = len(horizons) * (len(OF_A_SYMBOL) * symbols + 1)
    kind: Literal["negative", "positive"] = "positive" if name == PLANTED else "negative"
    found = []
    for horizon, (forecast, base, block) in _losses(
        altered, symbol, search, rules, step_ms, plan.seed
    ).items():
        told = forecast, base, block, _REPS, plan.seed
        wide = significance.skill_interval(*told, level=1 - SIGNIFICANCE_LEVEL / negatives)
        found_skill = significance.verdict(wide) == "better"
        found.append(
            Control(
                name=name,
                kind=kind,
                symbol=symbol,
                horizon=horizon,
                skill=significance.skill_interval(*told),
                wide=wide,
                passed=found_skill == (kind == "positive"),
            )
        )
    return found


def _losses(
    altered: list[Dataset],
    symbol: str,
    search: Search,
    rules: Mapping[str, ForecastRule],
    step_ms: Millis,
    seed: int,
) -> dict[str, tuple[Floats, Floats, int]]:
    """By horizon: losses of forecasts and of the base rate treated alike, of each query by one of
    the alterations in turn; and the queries in a stretch that counts as one piece of evidence.
    """
    found: dict[str, tuple[Floats, Floats, int]] = {}
    for nth, dataset in enumerate(altered):
        points, queries = dataset.points[symbol], dataset.queries(symbol, step_ms)
        turn = slice(nth, None, len(altered))
        asked = queries.take(turn)
        neighbours = find_neighbours(points, asked, search, intraday=dataset.intraday, seed=seed)
        for name, rule in rules.items():
            nothing = np.full((2, len(queries)), np.nan)
            forecast, base, _ = found.setdefault(name, (*nothing, block_of(name, step_ms)))
            horizon = horizon_of(points, asked, neighbours, name, rule)
            forecast[turn], base[turn] = losses_beside_base(horizon, neighbours, rule)
    return found


def _other(dataset: Dataset, symbol: str) -> PointTable:
    """Another symbol's points; where there is none, states of a simulated market, timed alike."""
    for other, points in sorted(dataset.points.items()):
        if other != symbol:
            return points
    own = dataset.points[symbol]
    step_ms = int(np.diff(own.timestamp_ms).min(initial=DAY_MS))
    days = -(-len(own) * step_ms // DAY_MS) + WARM_UP_DAYS
    spaces = Spaces(StateSpace(dataset.intraday))
    states = simulated_points(spaces, days=days, seed=0, interval_ms=step_ms).vectors[STATE]
    return replace(own, vectors={**own.vectors, STATE: states[: len(own)]})
