"""Ways to decide, each traded over the same time on the same snapshots.

rag                 the decider on what followed the neighbours
baseline            the same decider on the base rate of the window alone: no retrieval
random neighbours   the same decider on neighbours drawn by chance: a placebo
random              the sides that rag took at another time
rsi-7, macd-sign    rules of thumb
hold                the asset, bought and kept
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from msgspec.structs import replace

from llm_trader.evaluation import significance
from llm_trader.evaluation.backtest.performance import daily_returns, measure
from llm_trader.evaluation.backtest.simulator import BUY_AND_HOLD, Simulation, sides_of, simulate
from llm_trader.evaluation.forecast.ensembles import Horizon, horizon_of
from llm_trader.evaluation.forecast.neighbour_search import Neighbours
from llm_trader.evaluation.forecast.skills import Walk
from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.results import Arm
from llm_trader.evaluation.significance import SIGNIFICANCE_LEVEL
from llm_trader.llm.aggregator import Aggregator
from llm_trader.llm.decider import Case, Decider, Outlook
from llm_trader.llm.decision import Decision
from llm_trader.llm.rules import AlwaysLong, MacdSign, RsiReversal
from llm_trader.market.candles import CandleSeries
from llm_trader.market.samples import FundingSeries
from llm_trader.snapshot.model import SCALARS, SERIES, SERIES_LENGTH
from llm_trader.snapshot.outcome import HORIZONS
from llm_trader.snapshot.table import SnapshotTable

RAG: Final = "rag"
BASELINE: Final = "baseline"
PLACEBO: Final = "random neighbours"
RANDOM: Final = "random"
HOLD: Final = "hold"

_DAYS_A_BLOCK: Final = 5


@dataclass(frozen=True, slots=True)
class Market:
    """What trades are settled on: candles and funding of the evaluated time."""

    candles: CandleSeries
    funding: FundingSeries


@dataclass(frozen=True, slots=True)
class Traded:
    name: str
    decisions: list[Decision]
    simulation: Simulation


def trade(name: str, walk: Walk, market: Market, plan: StudyPlan) -> Traded:
    """Decide on every query of a walk by one of `ARMS`, and trade that."""
    decisions = _DECISIONS[name](walk, plan)
    rules = BUY_AND_HOLD if name == HOLD else plan.trading
    simulation = simulate(
        market.candles,
        market.funding,
        walk.queries.timestamp_ms,
        sides_of(decisions),
        plan.costs,
        rules,
    )
    return Traded(name, decisions, simulation)


def arms_of(
    symbol: str,
    traded: list[Traded],
    baseline: str,
    *,
    trials: int,
    symbols: int = 1,
    plan: StudyPlan,
) -> list[Arm]:
    """Performances, and differences of mean daily returns from the baseline's.

    Verdicts are by intervals that allow for the number of `symbols` looked at (Bonferroni's rule).
    """
    returns = {of.name: daily_returns(of.simulation) for of in traded}
    found = []
    for of in traded:
        difference = verdict = None
        if of.name != baseline:
            # Days after the loss of everything have no return.
            days = min(len(returns[of.name]), len(returns[baseline]))
            apart = 100 * (returns[of.name][:days] - returns[baseline][:days])
            told = apart, _DAYS_A_BLOCK, plan.reps, plan.seed
            difference = significance.mean_interval(*told)
            wide = significance.mean_interval(*told, level=1 - SIGNIFICANCE_LEVEL / symbols)
            verdict = significance.verdict(wide)
        found.append(
            Arm(
                symbol=symbol,
                name=of.name,
                performance=measure(of.simulation, trials=trials),
                difference=difference,
                verdict=verdict,
            )
        )
    return found


def _by_neighbours(walk: Walk, plan: StudyPlan) -> list[Decision]:
    return _decided(Aggregator(plan.aggregator), _cases(walk, _near(walk, plan, walk.neighbours)))


def _by_random_neighbours(walk: Walk, plan: StudyPlan) -> list[Decision]:
    """Whose likeness is no reason to hold back, or they would never be followed."""
    settings = replace(plan.aggregator, least_similarity=None)
    return _decided(Aggregator(settings), _cases(walk, _near(walk, plan, walk.random)))


def _by_base_rate(walk: Walk, plan: StudyPlan) -> list[Decision]:
    """Nothing is asked of the likeness of neighbours where there are none."""
    settings = replace(plan.aggregator, least_similarity=None)
    return _decided(Aggregator(settings), _cases(walk, _usual(walk, plan)))


def _by_chance(walk: Walk, plan: StudyPlan) -> list[Decision]:
    """What rag decided at another time: as often, and in stretches as long."""
    like = _by_neighbours(walk, plan)
    by = int(np.random.default_rng(plan.seed).integers(len(like) // 4, 3 * len(like) // 4 + 1))
    return like[by:] + like[:by]


def _by_rule(decider: Decider) -> Callable[[Walk, StudyPlan], list[Decision]]:
    return lambda walk, plan: _decided(decider, _cases(walk, _nothing(walk)))


_DECISIONS: Final[dict[str, Callable[[Walk, StudyPlan], list[Decision]]]] = {
    RAG: _by_neighbours,
    BASELINE: _by_base_rate,
    PLACEBO: _by_random_neighbours,
    RANDOM: _by_chance,
    RsiReversal().name: _by_rule(RsiReversal()),
    MacdSign().name: _by_rule(MacdSign()),
    HOLD: _by_rule(AlwaysLong()),
}
ARMS: Final = tuple(_DECISIONS)


def _cases(walk: Walk, outlooks: Iterator[dict[str, Outlook]]) -> Iterator[Case]:
    """Each query with what is told of what follows it."""
    series = np.full((len(SERIES), 1, SERIES_LENGTH), np.nan)
    scalars, stamps = walk.queries.values[: len(SCALARS)], walk.queries.timestamp_ms
    for i, told in enumerate(outlooks):
        state = SnapshotTable(
            walk.queries.symbol, walk.intraday, stamps[i : i + 1], scalars[:, i : i + 1], series
        )
        yield Case(state, told)


def _nothing(walk: Walk) -> Iterator[dict[str, Outlook]]:
    return ({} for _ in range(len(walk.queries)))


def _near(walk: Walk, plan: StudyPlan, neighbours: Neighbours) -> Iterator[dict[str, Outlook]]:
    """What followed the neighbours; nothing where they are too few."""
    horizon = plan.aggregator.horizon
    outcomes = _horizon(walk, plan).outcomes(neighbours.rows)
    columns = (
        outcomes.mean(axis=1),
        np.median(outcomes, axis=1),
        (outcomes > 0).mean(axis=1),
        walk.effective_episodes(horizon, neighbours),
        neighbours.similarity.mean(axis=1, dtype=np.float64),
    )
    whole = walk.neighbours.complete & neighbours.complete
    told = zip(whole.tolist(), *(of.tolist() for of in columns), strict=True)
    for known, mean_pct, median_pct, p_up, effective, similarity in told:
        outlook = Outlook(mean_pct, median_pct, p_up, outcomes.shape[1], effective, similarity)
        yield {horizon: outlook} if known else {}


def _usual(walk: Walk, plan: StudyPlan) -> Iterator[dict[str, Outlook]]:
    """What followed all states of the window; on the snapshots that have neighbours."""
    name = plan.aggregator.horizon
    base = _horizon(walk, plan).base_rates()
    first, last = walk.neighbours.first, walk.neighbours.last
    apart_ms = int(np.diff(walk.points.timestamp_ms).min(initial=HORIZONS[name]))
    separate = (last - first) * min(1.0, apart_ms / HORIZONS[name])
    for i, whole in enumerate(walk.neighbours.complete.tolist()):
        if not whole:
            yield {}
            continue
        yield {
            name: Outlook(
                mean_pct=float(base.mean[i]),
                median_pct=float(base.median[i]),
                p_up=float(base.share_up[i]),
                episodes=int(last[i] - first[i]),
                effective_episodes=float(separate[i]),
                similarity_mean=None,
            )
        }


def _horizon(walk: Walk, plan: StudyPlan) -> Horizon:
    name = plan.aggregator.horizon
    return horizon_of(walk.points, walk.queries, walk.neighbours, name, plan.rules[name])


def _decided(decider: Decider, cases: Iterator[Case]) -> list[Decision]:
    async def decide() -> list[Decision]:
        return [await decider.decide(case) for case in cases]

    return asyncio.run(decide())
