"""Strategies, each traded over the same time on the same snapshots.

rag                 the decider on what followed the neighbours
baseline            the same decider on the base rate of the window alone: no retrieval
random neighbours   the same decider on random neighbours: a placebo
random              the sides that rag took at another time
rsi-7, macd-sign    rules of thumb
hold                the asset, bought and kept
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from llm_trader.arrays import Mask
from llm_trader.evaluation import significance
from llm_trader.evaluation.backtest.performance import daily_returns, measure
from llm_trader.evaluation.backtest.simulator import BUY_AND_HOLD, Simulation, sides_of, simulate
from llm_trader.evaluation.forecast.ensembles import HorizonOutcomes
from llm_trader.evaluation.forecast.neighbour_search import Neighbours
from llm_trader.evaluation.forecast.skills import WalkForward
from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.results import Arm
from llm_trader.llm.aggregator import Aggregator
from llm_trader.llm.decision import Case, Decider, Decision, Outlook
from llm_trader.llm.rules import AlwaysLong, MacdSign, RsiReversal
from llm_trader.market.candles import CandleSeries
from llm_trader.market.samples import FundingSeries
from llm_trader.snapshot.model import SCALARS, SERIES, SERIES_LENGTH
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import HORIZONS

RAG: Final = "rag"
BASELINE: Final = "baseline"
RANDOM_NEIGHBOURS: Final = "random neighbours"
RANDOM: Final = "random"
HOLD: Final = "hold"

# A working week of days: positions last hours, while spells of volatility last days.
_DAYS_PER_BLOCK: Final = 5

Outlooks = Iterable[dict[str, Outlook]]
Strategy = Callable[[WalkForward, StudyPlan], list[Decision]]


@dataclass(frozen=True, slots=True)
class Market:
    """What trades are settled on: candles and funding of the evaluated time."""

    candles: CandleSeries
    funding: FundingSeries


@dataclass(frozen=True, slots=True)
class Backtest:
    """One strategy's decisions, and what they would have earned."""

    name: str
    decisions: list[Decision]
    simulation: Simulation


def run_backtest(name: str, walk: WalkForward, market: Market, plan: StudyPlan) -> Backtest:
    """Decide on every query of a walk by one of `STRATEGIES`, and trade that."""
    decisions = _STRATEGIES[name](walk, plan)
    rules = BUY_AND_HOLD if name == HOLD else plan.trading
    times_ms, sides = walk.queries.timestamp_ms, sides_of(decisions)
    simulation = simulate(market.candles, market.funding, times_ms, sides, plan.costs, rules)
    return Backtest(name, decisions, simulation)


def compare_arms(
    symbol: str,
    backtests: Sequence[Backtest],
    baseline: str,
    plan: StudyPlan,
    *,
    trials: int,
    symbols: int = 1,
) -> list[Arm]:
    """Performances, and differences of mean daily returns from the baseline's.

    Verdicts are by intervals that allow for the number of `symbols` compared (Bonferroni's rule).
    """
    returns = {backtest.name: daily_returns(backtest.simulation) for backtest in backtests}
    level = 1 - significance.SIGNIFICANCE_LEVEL / symbols
    arms = []
    for backtest in backtests:
        difference = verdict = None
        if backtest.name != baseline:
            arm_returns, base_returns = returns[backtest.name], returns[baseline]
            # Days after a total loss have no return.
            days = min(len(arm_returns), len(base_returns))
            differences = 100 * (arm_returns[:days] - base_returns[:days])
            resampling = differences, _DAYS_PER_BLOCK, plan.reps, plan.seed
            difference = significance.mean_interval(*resampling)
            verdict = significance.verdict(significance.mean_interval(*resampling, level=level))
        arms.append(
            Arm(
                symbol=symbol,
                name=backtest.name,
                performance=measure(backtest.simulation, trials=trials),
                difference=difference,
                verdict=verdict,
            )
        )
    return arms


def _by_neighbours(walk: WalkForward, plan: StudyPlan) -> list[Decision]:
    outlooks = _neighbour_outlooks(walk, plan, walk.neighbours)
    return _decide(Aggregator(plan.aggregator), walk, outlooks)


def _by_random_neighbours(walk: WalkForward, plan: StudyPlan) -> list[Decision]:
    # Random neighbours are unlike by construction: with the threshold none would be followed.
    settings = replace(plan.aggregator, least_similarity=None)
    return _decide(Aggregator(settings), walk, _neighbour_outlooks(walk, plan, walk.random))


def _by_base_rate(walk: WalkForward, plan: StudyPlan) -> list[Decision]:
    # A base rate has no neighbours whose similarity could reach a threshold.
    settings = replace(plan.aggregator, least_similarity=None)
    return _decide(Aggregator(settings), walk, _base_rate_outlooks(walk, plan))


def _at_another_time(walk: WalkForward, plan: StudyPlan) -> list[Decision]:
    """The decisions of rag, rotated: as often, and in stretches as long."""
    decisions = _by_neighbours(walk, plan)
    n = len(decisions)
    shift = int(np.random.default_rng(plan.seed).integers(n // 4, 3 * n // 4 + 1))
    return decisions[shift:] + decisions[:shift]


def _by_rule(decider: Decider) -> Strategy:
    return lambda walk, plan: _decide(decider, walk, ({} for _ in range(len(walk.queries))))


_STRATEGIES: Final[dict[str, Strategy]] = {
    RAG: _by_neighbours,
    BASELINE: _by_base_rate,
    RANDOM_NEIGHBOURS: _by_random_neighbours,
    RANDOM: _at_another_time,
    RsiReversal().name: _by_rule(RsiReversal()),
    MacdSign().name: _by_rule(MacdSign()),
    HOLD: _by_rule(AlwaysLong()),
}
STRATEGIES: Final = tuple(_STRATEGIES)


def _decide(decider: Decider, walk: WalkForward, outlooks: Outlooks) -> list[Decision]:
    async def decide() -> list[Decision]:
        return [await decider.decide(case) for case in _cases(walk, outlooks)]

    return asyncio.run(decide())


def _cases(walk: WalkForward, outlooks: Outlooks) -> Iterator[Case]:
    """Each query with the outlook that a strategy has for it."""
    series = np.full((len(SERIES), 1, SERIES_LENGTH), np.nan)
    scalars, times_ms = walk.queries.values[: len(SCALARS)], walk.queries.timestamp_ms
    for i, outlook in enumerate(outlooks):
        row = slice(i, i + 1)
        state = SnapshotTable(
            walk.queries.symbol, walk.intraday, times_ms[row], scalars[:, row], series
        )
        yield Case(state, outlook)


def _neighbour_outlooks(walk: WalkForward, plan: StudyPlan, neighbours: Neighbours) -> Outlooks:
    """What followed the neighbours; nothing where they are too few."""
    horizon = plan.aggregator.horizon
    relative = _outcomes(walk, plan)
    outcomes = relative.outcomes(neighbours.rows) * relative.scale_pct[:, None]
    columns = (
        outcomes.mean(axis=1),
        np.median(outcomes, axis=1),
        (outcomes > 0).mean(axis=1),
        np.full(*outcomes.shape),
        walk.effective_episodes(horizon, neighbours),
        neighbours.similarity.mean(axis=1, dtype=np.float64),
    )
    return _outlooks(horizon, walk.neighbours.complete & neighbours.complete, *columns)


def _base_rate_outlooks(walk: WalkForward, plan: StudyPlan) -> Outlooks:
    """What followed all states of the window, for the queries that have neighbours."""
    horizon = plan.aggregator.horizon
    outcomes = _outcomes(walk, plan)
    points = walk.neighbours.last - walk.neighbours.first
    interval_ms = int(np.diff(walk.points.timestamp_ms).min(initial=HORIZONS[horizon]))
    effective = points * min(1.0, interval_ms / HORIZONS[horizon])
    columns = *outcomes.base_rates(), outcomes.base_share_up(), points, effective
    return _outlooks(horizon, walk.neighbours.complete, *columns, np.full(len(points), None))


def _outlooks(horizon: str, complete: Mask, *columns: npt.NDArray[Any]) -> Outlooks:
    """Outlooks from one column for each of their fields, for the `complete` queries (n,)."""
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for is_complete, row in zip(complete.tolist(), rows, strict=True):
        yield {horizon: Outlook(*row)} if is_complete else {}


def _outcomes(walk: WalkForward, plan: StudyPlan) -> HorizonOutcomes:
    horizon = plan.aggregator.horizon
    scale = plan.rules[horizon].scale
    return HorizonOutcomes(walk.points, walk.queries, walk.neighbours, horizon, scale)
