"""Strategies, each traded over the same time on the same snapshots.

rag                 the decider on what followed the neighbours
baseline            the same decider on the base rate of the window alone: no retrieval
random neighbours   the same decider on random neighbours: a placebo
random              the sides that rag took at another time
rsi-7, macd-sign    rules of thumb
hold                the asset, bought and kept

The decisions of a language model are made before, by `../decisions`, and handed in as `GivenArm`:
its arms are rag, baseline, and both with masked prompts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from llm_trader.arrays import Floats, Mask, Times
from llm_trader.errors import InvalidInputError
from llm_trader.evaluation import significance
from llm_trader.evaluation.backtest.performance import daily_returns, measure
from llm_trader.evaluation.backtest.simulator import (
    BUY_AND_HOLD,
    Simulation,
    sides_of,
    simulate,
    single_results,
)
from llm_trader.evaluation.forecast.ensembles import HorizonOutcomes
from llm_trader.evaluation.forecast.neighbour_search import Neighbours
from llm_trader.evaluation.forecast.skills import WalkForward
from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.results import Arm, Paired, Period
from llm_trader.llm.aggregator import Aggregator
from llm_trader.llm.decision import Case, Decider, Decision, Outlook
from llm_trader.llm.rules import AlwaysLong, MacdSign, RsiReversal
from llm_trader.market.candles import CandleSeries
from llm_trader.market.samples import FundingSeries
from llm_trader.snapshot.model import SCALARS, SERIES, SERIES_LENGTH
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, HORIZONS, Millis

RAG: Final = "rag"
BASELINE: Final = "baseline"
RANDOM_NEIGHBOURS: Final = "random neighbours"
RANDOM: Final = "random"
HOLD: Final = "hold"
# The same prompts without the symbol, and with rescaled prices: what a model may remember.
MASKED: Final = " masked"

# A working week of days: positions last hours, while spells of volatility last days.
_DAYS_PER_BLOCK: Final = 5
# A block of b rows misses h / (3 b) of the variance of results over h rows: here a ninth.
_HOLDS_PER_BLOCK: Final = 3

Outlooks = Iterable[dict[str, Outlook]]
Strategy = Callable[[WalkForward, StudyPlan], list[Decision]]


@dataclass(frozen=True, slots=True)
class Market:
    """What trades are settled on: candles and funding of the evaluated time."""

    candles: CandleSeries
    funding: FundingSeries


class GivenArm(NamedTuple):
    """Decisions made elsewhere at some increasing times (n,), and what each cost (n,), as a
    fraction of the equity at the start.
    """

    time_ms: Times
    decisions: list[Decision]
    bills: Floats


@dataclass(frozen=True, slots=True)
class Backtest:
    """One strategy's decisions, and what they would have earned."""

    name: str
    decisions: list[Decision]
    simulation: Simulation
    bills: Floats | None = None


def run_backtest(
    name: str, walk: WalkForward, market: Market, plan: StudyPlan, given: GivenArm | None = None
) -> Backtest:
    """Decide on every query of a walk by one of `STRATEGIES`, or as given, and trade that."""
    times_ms = walk.queries.timestamp_ms
    if given is None:
        decisions, bills = _STRATEGIES[name](walk, plan), None
    elif not np.array_equal(given.time_ms, times_ms):
        raise InvalidInputError(f"the decisions of {name} are of other states than the walk's")
    else:
        decisions, bills = given.decisions, given.bills
    rules = BUY_AND_HOLD if name == HOLD else plan.trading
    traded = market.candles, market.funding, times_ms, sides_of(decisions)
    return Backtest(name, decisions, simulate(*traded, plan.costs, rules, bills), bills)


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


def pair_decisions(
    symbol: str,
    backtests: Sequence[Backtest],
    baseline: str,
    market: Market,
    plan: StudyPlan,
    cutoff_ms: Millis | None,
) -> list[Paired]:
    """Each arm's decisions beside the baseline's, over all states and before and after a cutoff."""
    results = {backtest.name: _single_results(backtest, market, plan) for backtest in backtests}
    time_ms = backtests[0].simulation.time_ms
    step_ms = int(np.diff(time_ms).min(initial=DAY_MS))
    # Several longest holds, and a whole day: states of a day share their evidence.
    overlap_ms = max(DAY_MS, _HOLDS_PER_BLOCK * (plan.trading.longest_hold_ms or DAY_MS))
    periods: dict[Period, Mask] = {"all": np.ones(len(time_ms), np.bool_)}
    if cutoff_ms is not None:
        periods["up to the cutoff"] = time_ms < cutoff_ms
        periods["after the cutoff"] = time_ms >= cutoff_ms
    sides = {backtest.name: sides_of(backtest.decisions) for backtest in backtests}
    return [
        Paired(
            symbol=symbol,
            arm=name,
            baseline=baseline,
            period=period,
            states=int(rows.sum()),
            different=int((sides[name] != sides[baseline])[rows].sum()),
            difference=significance.mean_interval(
                (results[name] - results[baseline])[rows],
                max(1, -(-overlap_ms // step_ms)),
                plan.reps,
                plan.seed,
            ),
        )
        for name in results
        if name != baseline
        for period, rows in periods.items()
    ]


def _single_results(backtest: Backtest, market: Market, plan: StudyPlan) -> Floats:
    """Net of the bills: a position of the whole account pays them in full."""
    decided = backtest.simulation.time_ms, sides_of(backtest.decisions)
    net_pct = single_results(market.candles, market.funding, *decided, plan.costs, plan.trading)
    return net_pct if backtest.bills is None else net_pct - 100 * backtest.bills


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
MODEL_ARMS: Final = (BASELINE, RAG, BASELINE + MASKED, RAG + MASKED)
# What can stand beside a model: the other strategies are made of an aggregator's decisions.
RULE_ARMS: Final = (RsiReversal().name, MacdSign().name, HOLD)


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
