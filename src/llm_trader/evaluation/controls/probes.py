"""Searches for knowledge of the future in what a walk found.

future canary   every point that was not known yet becomes a perfect twin of the query, with absurd
                outcomes: the answer must stay as it is
truncation      candles, funding and open interest after the query's time are cut off, and states,
                outcomes and neighbours are made anew from the rest: they must be the same
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from llm_trader.arrays import VECTOR_ROUNDING, Floats, Rows
from llm_trader.checks.cutoff import changed_fields, history_with_future, same_vectors
from llm_trader.checks.sampling import sample
from llm_trader.embedding.state import StateSpace
from llm_trader.evaluation.forecast.ensembles import ForecastRule, forecast, horizon_of
from llm_trader.evaluation.forecast.feature_weights import reweighted
from llm_trader.evaluation.forecast.neighbour_search import Neighbours, Search, find_neighbours
from llm_trader.evaluation.forecast.skills import Walk
from llm_trader.evaluation.results import Probe
from llm_trader.index.ingestion import Spaces, make_points
from llm_trader.index.points import COLUMNS, STATE, PointTable
from llm_trader.market.store import MarketStore
from llm_trader.snapshot.builder import build_snapshots
from llm_trader.snapshot.model import SCALARS
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS
from llm_trader.timeframe import DAY_MS, Millis, iso8601

CANARY: Final = "future canary"
TRUNCATION: Final = "truncation"

_CANARIES: Final = 20
_TRUNCATIONS: Final = 4
_ABSURD_PCT: Final = 1e6


def future_canary(
    walk: Walk, search: Search, rules: Mapping[str, ForecastRule], space: StateSpace, seed: int
) -> Probe:
    """Asked again with the future changed, some queries of the walk must get the same answer."""
    rows = _sampled(walk, _CANARIES, seed)
    problem = None
    for row in rows.tolist():
        query = walk.queries.take(np.array([row]))
        points, asked = _with_twins(walk.points, query)
        found = find_neighbours(points, asked, search, intraday=space.intraday, seed=seed)
        told = _forecasts(points, asked, found, rules)
        if not _same(found, 0, walk.neighbours, row) or not np.array_equal(
            told, _forecasts(walk.points, query, walk.neighbours.take(row), rules), equal_nan=True
        ):
            problem = f"what is not known yet changes the answer at {_when(query)}"
            break
    return Probe(name=CANARY, symbol=walk.points.symbol, checked=len(rows), problem=problem)


def _forecasts(
    points: PointTable, query: PointTable, found: Neighbours, rules: Mapping[str, ForecastRule]
) -> Floats:
    """All that one query is told: outcomes of neighbours and base rates, by horizon."""
    told = []
    for name, rule in rules.items():
        horizon = horizon_of(points, query, found, name, rule)
        made, base = forecast(horizon, found, rule), horizon.base_rates()
        told += [made.ensemble.outcomes[0], made.p_up, made.median, base.mean, base.median]
    return np.concatenate(told)


def truncation(
    walk: Walk, search: Search, space: StateSpace, store: MarketStore, seed: int
) -> Probe:
    """Asked again of a market that ends at their time, some queries must find what they found."""
    rows = _sampled(walk, _TRUNCATIONS, seed)
    problem = None
    for row in rows.tolist():
        problem = _cut_off(walk, row, search, space, store, seed)
        if problem:
            break
    return Probe(name=TRUNCATION, symbol=walk.points.symbol, checked=len(rows), problem=problem)


def _sampled(walk: Walk, most: int, seed: int) -> Rows:
    whole = np.flatnonzero(walk.neighbours.complete)
    return np.sort(sample(whole, most, np.random.default_rng(seed)))


def _with_twins(points: PointTable, query: PointTable) -> tuple[PointTable, PointTable]:
    """Points not resolved by the query's time look just like it, and their outcomes are absurd, as
    the query's own is.
    """
    unknown = points.resolved_at_ms > query.timestamp_ms[0]
    vectors = {name: known.copy() for name, known in points.vectors.items()}
    for name, known in vectors.items():
        known[unknown] = query.vectors[name][0]
    values, own = points.values.copy(), query.values.copy()
    values[len(SCALARS) :, unknown] = own[len(SCALARS) :] = _ABSURD_PCT
    return replace(points, vectors=vectors, values=values), replace(query, values=own)


def _cut_off(
    walk: Walk, row: int, search: Search, space: StateSpace, store: MarketStore, seed: int
) -> str | None:
    """What is wrong with one query once nothing is known of the time after it."""
    query = walk.queries.take(np.array([row]))
    at = int(query.timestamp_ms[0])
    stamps = walk.points.timestamp_ms
    seen = walk.points.take((stamps >= at - (search.lookback_days + 1) * DAY_MS) & (stamps < at))
    first_ms = int(seen.timestamp_ms[0])
    history = history_with_future(store, seen.symbol, space.intraday, first_ms, at).known_at(at)
    asked = build_snapshots(history, query.timestamp_ms)
    if not np.array_equal(asked.scalars, query.values[: len(SCALARS)], equal_nan=True):
        return f"the state at {_when(query)} is another when the future is cut off"
    vectors, _ = space.embed(asked)
    embedded = replace(query, vectors={**query.vectors, STATE: vectors})
    if not _alike(reweighted(embedded, space, search.feature_weights), query):
        return f"the state's vector at {_when(query)} is another when the future is cut off"
    step_ms = int(np.diff(seen.timestamp_ms).min())
    times = np.arange(first_ms, at - LONGEST_HORIZON_MS + 1, step_ms, dtype=np.int64)
    made, _ = make_points(history, Spaces(space), times, at, 1)
    made = reweighted(made, space, search.feature_weights)
    kept = seen.take(np.isin(seen.timestamp_ms, made.timestamp_ms))
    if problem := _differs(made, seen, query):
        return problem
    # Texts are told from the fields just compared, so their vectors need not be made again.
    made = replace(made, vectors={**kept.vectors, STATE: made.vectors[STATE]})
    found = find_neighbours(made, query, search, intraday=space.intraday, seed=seed)
    theirs = walk.neighbours.rows[row]
    mine = found.rows[0]
    if not np.array_equal(made.timestamp_ms[mine], stamps[theirs]):
        return f"other neighbours are found at {_when(query)} when the future is cut off"
    return None


def _differs(made: PointTable, seen: PointTable, query: PointTable) -> str | None:
    what = f"known at {_when(query)}, when the future is cut off"
    resolved = seen.take(seen.resolved_at_ms <= query.timestamp_ms[0])
    if not np.array_equal(made.timestamp_ms, resolved.timestamp_ms):
        return f"the points are others that are {what}"
    if changed := changed_fields(COLUMNS, made.values, resolved.values, relative=0):
        return f"{changed[0]} of points is another, as {what}"
    if not _alike(made, resolved):
        return f"the state's vector of points is another, as {what}"
    return None


def _alike(one: PointTable, other: PointTable) -> bool:
    return same_vectors(one.vectors[STATE], other.vectors[STATE])


def _same(found: Neighbours, row: int, others: Neighbours, other: int) -> bool:
    alike = np.abs(found.similarity[row] - others.similarity[other]) <= VECTOR_ROUNDING
    return bool(np.array_equal(found.rows[row], others.rows[other]) and alike.all())


def _when(query: PointTable) -> str:
    at: Millis = int(query.timestamp_ms[0])
    return iso8601(at)
