"""Probes search for knowledge of the future in what a walk found.

future canary   every point that was not known yet becomes a perfect twin of the query with absurd
                outcomes: the answer must not change
truncation      candles, funding and open interest after the query's time are cut off, and states,
                outcomes and neighbours are made again from the rest: they must not change

They probe the walk's own search and forecasts, so they live here and not in `checks`, from which
they take the cut-off and the comparisons.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from llm_trader.arrays import VECTOR_ROUNDING, Floats
from llm_trader.checks.cutoff import changed_fields, history_with_future, same_vectors
from llm_trader.checks.sampling import sample
from llm_trader.evaluation.forecast.ensembles import HorizonOutcomes, make_forecasts
from llm_trader.evaluation.forecast.neighbour_search import (
    Neighbours,
    find_neighbours,
    reweight_features,
)
from llm_trader.evaluation.forecast.skills import WalkForward
from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.results import Probe
from llm_trader.index.ingestion import Spaces, make_points
from llm_trader.index.points import COLUMNS, STATE, PointTable
from llm_trader.market.history import MarketHistory
from llm_trader.market.store import MarketStore
from llm_trader.snapshot.builder import build_snapshots
from llm_trader.snapshot.model import SCALARS
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS
from llm_trader.timeframe import DAY_MS, iso8601

CANARY: Final = "future canary"
TRUNCATION: Final = "truncation"

# A leak in the rule shows at any query: a few are enough, and each truncation rebuilds a lookback.
_CANARY_QUERIES: Final = 20
_TRUNCATION_QUERIES: Final = 4
_ABSURD_PCT: Final = 1e6


def probe_future_canary(walk: WalkForward, plan: StudyPlan) -> Probe:
    """Some queries of the walk, asked again with another future, must get the same answer."""
    return _probe(CANARY, walk, _CANARY_QUERIES, plan.seed, lambda row: _canary(walk, row, plan))


def probe_truncation(
    walk: WalkForward, plan: StudyPlan, spaces: Spaces, store: MarketStore
) -> Probe:
    """Some queries, asked of a market that ends at their time, must find what they found."""
    return _probe(
        TRUNCATION,
        walk,
        _TRUNCATION_QUERIES,
        plan.seed,
        lambda row: _truncation(walk, row, plan, spaces, store),
    )


def _probe(
    name: str, walk: WalkForward, count: int, seed: int, problem_of: Callable[[int], str | None]
) -> Probe:
    """Probe some of the queries that have all their neighbours, up to the first problem."""
    complete = np.flatnonzero(walk.neighbours.complete)
    rows = np.sort(sample(complete, count, np.random.default_rng(seed)))
    problem = next(filter(None, map(problem_of, rows.tolist())), None)
    return Probe(name=name, symbol=walk.points.symbol, checked=len(rows), problem=problem)


def _canary(walk: WalkForward, row: int, plan: StudyPlan) -> str | None:
    """What changes for one query when all data that it must not know becomes absurd."""
    query, expected = walk.queries.take(np.array([row])), walk.neighbours.take(slice(row, row + 1))
    points, changed_query = _with_twins(walk.points, query)
    neighbours = find_neighbours(points, changed_query, plan.search, seed=plan.seed)
    close = np.abs(neighbours.similarity - expected.similarity) <= VECTOR_ROUNDING
    answer = _answer(points, changed_query, neighbours, plan)
    expected_answer = _answer(walk.points, query, expected, plan)
    if (
        np.array_equal(neighbours.rows, expected.rows)
        and close.all()
        and np.array_equal(answer, expected_answer, equal_nan=True)
    ):
        return None
    return f"what is not known yet changes the answer at {_time(query)}"


def _with_twins(points: PointTable, query: PointTable) -> tuple[PointTable, PointTable]:
    """Points not resolved by the query's time get its vectors and absurd outcomes.

    The query's own outcomes become absurd as well.
    """
    unresolved = points.resolved_at_ms > query.timestamp_ms[0]
    vectors = {name: array.copy() for name, array in points.vectors.items()}
    for name, array in vectors.items():
        array[unresolved] = query.vectors[name][0]
    values, query_values = points.values.copy(), query.values.copy()
    values[len(SCALARS) :, unresolved] = query_values[len(SCALARS) :] = _ABSURD_PCT
    return replace(points, vectors=vectors, values=values), replace(query, values=query_values)


def _answer(
    points: PointTable, query: PointTable, neighbours: Neighbours, plan: StudyPlan
) -> Floats:
    """All that one query is answered: outcomes of neighbours and base rates, by horizon."""
    numbers = []
    for name, rule in plan.rules.items():
        outcomes = HorizonOutcomes(points, query, neighbours, name, rule.scale)
        forecasts = make_forecasts(outcomes, neighbours, rule)
        numbers += [outcomes.outcomes(neighbours.rows)[0], *forecasts[:4], *outcomes.base_rates()]
    return np.concatenate(numbers)


def _truncation(
    walk: WalkForward, row: int, plan: StudyPlan, spaces: Spaces, store: MarketStore
) -> str | None:
    """What changes for one query once nothing is known of the time after it."""
    query, weights = walk.queries.take(np.array([row])), plan.search.feature_weights
    space = spaces.state
    as_of_ms, times_ms = int(query.timestamp_ms[0]), walk.points.timestamp_ms
    earliest_ms = as_of_ms - (plan.search.lookback_days + 1) * DAY_MS
    candidates = walk.points.take((times_ms >= earliest_ms) & (times_ms < as_of_ms))
    first_ms = int(candidates.timestamp_ms[0])
    history = history_with_future(store, candidates.symbol, space.intraday, first_ms, as_of_ms)
    history = history.known_at(as_of_ms)
    if problem := _changed_query(query, history, plan, spaces):
        return problem
    step_ms = int(np.diff(candidates.timestamp_ms).min())
    times = np.arange(first_ms, as_of_ms - LONGEST_HORIZON_MS + 1, step_ms, dtype=np.int64)
    rebuilt, _ = make_points(history, spaces, times, as_of_ms, 1)
    rebuilt = reweight_features(rebuilt, space, weights)
    if problem := _changed_points(rebuilt, candidates, query):
        return problem
    # Texts are made from the fields just compared, so their vectors need not be made again.
    same_times = candidates.take(np.isin(candidates.timestamp_ms, rebuilt.timestamp_ms))
    rebuilt = replace(rebuilt, vectors={**same_times.vectors, STATE: rebuilt.vectors[STATE]})
    neighbours = find_neighbours(rebuilt, query, plan.search, seed=plan.seed)
    found_ms = rebuilt.timestamp_ms[neighbours.rows[0]]
    if not np.array_equal(found_ms, times_ms[walk.neighbours.rows[row]]):
        return f"other neighbours are found at {_time(query)} when the future is cut off"
    return None


def _changed_query(
    query: PointTable, history: MarketHistory, plan: StudyPlan, spaces: Spaces
) -> str | None:
    cut_off = f"at {_time(query)} is another when the future is cut off"
    snapshot = build_snapshots(history, query.timestamp_ms, spaces.rules)
    if not np.array_equal(snapshot.scalars, query.values[: len(SCALARS)], equal_nan=True):
        return f"the state {cut_off}"
    vectors, _ = spaces.state.embed(snapshot)
    embedded = replace(query, vectors={**query.vectors, STATE: vectors})
    if not _same_states(
        reweight_features(embedded, spaces.state, plan.search.feature_weights), query
    ):
        return f"the state's vector {cut_off}"
    return None


def _changed_points(rebuilt: PointTable, candidates: PointTable, query: PointTable) -> str | None:
    cut_off = f"known at {_time(query)}, when the future is cut off"
    resolved = candidates.take(candidates.resolved_at_ms <= query.timestamp_ms[0])
    if not np.array_equal(rebuilt.timestamp_ms, resolved.timestamp_ms):
        return f"the points are others that are {cut_off}"
    if changed := changed_fields(COLUMNS, rebuilt.values, resolved.values, relative=0):
        return f"{changed[0]} of points is another, as {cut_off}"
    if not _same_states(rebuilt, resolved):
        return f"the state's vector of points is another, as {cut_off}"
    return None


def _same_states(first: PointTable, second: PointTable) -> bool:
    return same_vectors(first.vectors[STATE], second.vectors[STATE])


def _time(query: PointTable) -> str:
    return iso8601(int(query.timestamp_ms[0]))
