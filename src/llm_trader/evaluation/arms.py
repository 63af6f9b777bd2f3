"""Ways to decide, each traded over the same time on the same snapshots, beside a baseline."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from llm_trader.evaluation import significance
from llm_trader.evaluation.forecasts import ForecastRule, horizon_of
from llm_trader.evaluation.performance import daily_returns, measure
from llm_trader.evaluation.results import Arm
from llm_trader.evaluation.skills import Walk
from llm_trader.evaluation.trading import (
    BUY_AND_HOLD,
    Costs,
    Simulation,
    TradingRules,
    sides_of,
    simulate,
)
from llm_trader.llm.aggregator import Aggregator, AggregatorSettings
from llm_trader.llm.decider import Case, Decider, Outlook
from llm_trader.llm.decision import Decision
from llm_trader.llm.rules import AlwaysLong, MacdSign, RandomSides, RsiReversal
from llm_trader.market.candles import CandleSeries, Floats
from llm_trader.market.samples import FundingSeries
from llm_trader.retrieval.episodes import effective_count
from llm_trader.snapshot.model import SCALARS, SERIES, SERIES_LENGTH
from llm_trader.snapshot.outcome import HORIZONS
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import Timeframe

RETRIEVAL: Final = "retrieval"
NO_RETRIEVAL: Final = "no retrieval"

_DAYS_A_BLOCK: Final = 5


@dataclass(frozen=True, slots=True)
class Market:
    """What trades are settled on: candles and funding of the evaluated time."""

    candles: CandleSeries
    funding: FundingSeries
    intraday: Timeframe
    costs: Costs
    rules: TradingRules


@dataclass(frozen=True, slots=True)
class Traded:
    name: str
    decisions: list[Decision]
    simulation: Simulation


def trade_arms(
    walk: Walk, market: Market, rule: ForecastRule, aggregator: AggregatorSettings, seed: int
) -> list[Traded]:
    """The aggregator on the neighbours, on the base rate alone, and the rules without either."""
    near = list(_cases(walk, market.intraday, rule, aggregator.horizon, walk.neighbours.rows))
    usual = list(_cases(walk, market.intraday, rule, aggregator.horizon, walk.random.rows))
    with_it = _decided(Aggregator(aggregator), near)
    longs, shorts = (
        sum(one.action == side for one in with_it) / len(with_it) for side in ("LONG", "SHORT")
    )
    traded = [
        _traded(RETRIEVAL, with_it, walk, market),
        _traded(NO_RETRIEVAL, _decided(Aggregator(aggregator), usual), walk, market),
    ]
    deciders: Sequence[Decider] = (RandomSides(longs, shorts, seed), RsiReversal(), MacdSign())
    traded += [_traded(of.name, _decided(of, near), walk, market) for of in deciders]
    held = Market(market.candles, market.funding, market.intraday, market.costs, BUY_AND_HOLD)
    return [*traded, _traded("hold", _decided(AlwaysLong(), near), walk, held)]


def arms_of(
    symbol: str, traded: list[Traded], baseline: str, *, trials: int, reps: int, seed: int
) -> list[Arm]:
    """Performances, and differences of mean daily returns from the baseline's."""
    returns = {of.name: daily_returns(of.simulation) for of in traded}
    found = []
    for of in traded:
        difference = None
        if of.name != baseline:
            apart = 100 * (returns[of.name] - returns[baseline])
            difference = significance.mean_interval(apart, _DAYS_A_BLOCK, reps, seed)
        found.append(
            Arm(
                symbol=symbol,
                name=of.name,
                performance=measure(of.simulation, trials=trials),
                difference=difference,
                verdict=significance.verdict(difference) if difference else None,
            )
        )
    return found


def _cases(
    walk: Walk,
    intraday: Timeframe,
    rule: ForecastRule,
    horizon: str,
    rows: np.ndarray[tuple[int, int], np.dtype[np.intp]],
) -> Iterable[Case]:
    """Each query with what its neighbours say over one horizon; nothing where they are too few."""
    of = horizon_of(walk.points, walk.queries, walk.neighbours, horizon, rule)
    ensembles = of.ensemble(rows)
    series = np.full((len(SERIES), 1, SERIES_LENGTH), np.nan)
    scalars, stamps = walk.queries.values[: len(SCALARS)], walk.queries.timestamp_ms
    times = walk.points.timestamp_ms
    for i in range(len(walk.queries)):
        state = SnapshotTable(
            walk.queries.symbol, intraday, stamps[i : i + 1], scalars[:, i : i + 1], series
        )
        outlooks = {}
        if rows[i, -1] >= 0:
            effective = effective_count(times[rows[i]], [HORIZONS[horizon]])
            similarity: Floats = walk.neighbours.similarity[i].astype(np.float64)
            outlook = Outlook.of_outcomes(ensembles[i], similarity, float(effective[0]))
            outlooks = {horizon: outlook} if outlook else {}
        yield Case(state, outlooks)


def _decided(decider: Decider, cases: list[Case]) -> list[Decision]:
    async def decide() -> list[Decision]:
        return [await decider.decide(case) for case in cases]

    return asyncio.run(decide())


def _traded(name: str, decisions: list[Decision], walk: Walk, market: Market) -> Traded:
    simulation = simulate(
        market.candles,
        market.funding,
        walk.queries.timestamp_ms,
        sides_of(decisions),
        market.costs,
        market.rules,
    )
    return Traded(name, decisions, simulation)
