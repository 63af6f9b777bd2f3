"""Cohorts on the wire: they are opened from a state, refined, and ranked.

The server keeps nothing of a cohort: its name says what it is, and what its verdict must allow for
follows from that (`retrieval/cohort/conditions.py`). So any worker answers about it, also after a
restart, and no client can make fewer looks count.
"""

from __future__ import annotations

import time
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from llm_trader.errors import InvalidInputError
from llm_trader.retrieval.cohort.conditions import (
    CONDITIONS,
    DIMENSIONS,
    MAX_CONDITIONS,
    CohortName,
)
from llm_trader.retrieval.cohort.outcomes import (
    CohortOutcomes,
    NearestStates,
    RankedCondition,
    describe_cohort,
    rank_conditions,
)
from llm_trader.retrieval.retriever import Question
from llm_trader.rpc.dispatcher import RequestContext
from llm_trader.rpc.params import Timeout
from llm_trader.serving.pattern_queries import PatternQueries
from llm_trader.serving.query_state import across_holes
from llm_trader.serving.wire import Moment
from llm_trader.snapshot.model import EXPECTED_VOLATILITY
from llm_trader.snapshot.source import SnapshotSource
from llm_trader.timeframe import Millis, iso8601

Name = Annotated[
    str,
    Meta(
        max_length=200,
        description="Name of a cohort, as an answer gives it.",
        examples=["BTCUSDT@2026-03-20T12:00:00Z/funding=negative"],
    ),
]
_MENU: Final = "; ".join(f"{d.name}={'|'.join(d.values)}: {d.description}" for d in DIMENSIONS)
Condition = Annotated[str, Meta(extra_json_schema={"enum": list(CONDITIONS)})]


class CohortOpenParams(Moment, frozen=True, forbid_unknown_fields=True):
    timeout_ms: Timeout | None = None


class CohortRefineParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    cohort: Name
    conditions: Annotated[
        list[Condition],
        Meta(
            min_length=1,
            max_length=MAX_CONDITIONS,
            description=f"Conditions to add, one of each kind, at most {MAX_CONDITIONS} in all: "
            f"{_MENU}.",
        ),
    ]
    timeout_ms: Timeout | None = None


class CohortRankParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    cohort: Name
    timeout_ms: Timeout | None = None


class CohortMetadata(msgspec.Struct, frozen=True):
    symbol: Annotated[str, Meta(description="The symbol.")]
    as_of: Annotated[Millis, Meta(description="Time of the state, UTC milliseconds.")]
    lookback_days: Annotated[int, Meta(description="Days before it that the window reaches back.")]
    collection: Annotated[str, Meta(description="Exchange and feature version of the index.")]
    embedding_model: Annotated[str, Meta(description="Id of the space of the state vectors.")]
    volatility_model: Annotated[
        str | None, Meta(description="Id of the model of the expected volatilities.")
    ]
    duration_us: Annotated[int, Meta(description="Time that the answer took, microseconds.")]
    request_id: Annotated[str, Meta(description="Id of the request in the server's log.")]
    warnings: Annotated[list[str], Meta(description="What to be careful about.")]
    unknown_fields: Annotated[
        list[str], Meta(description="Parameters that the server does not know.")
    ]


class CohortResult(msgspec.Struct, frozen=True):
    cohort: Name
    conditions: Annotated[list[str], Meta(description="The conditions that its states meet.")]
    expected_volatility_pct: Annotated[
        dict[str, float | None],
        Meta(description="How far the price should move now, by horizon, %; null where unknown."),
    ]
    outcomes: Annotated[CohortOutcomes, Meta(description="What followed its states.")]
    metadata: Annotated[CohortMetadata, Meta(description="How the answer was made.")]


class CohortRankResult(msgspec.Struct, frozen=True):
    cohort: Name
    conditions: Annotated[list[str], Meta(description="The conditions that its states meet.")]
    states: Annotated[int, Meta(description="Number of states in the cohort.")]
    ranking: Annotated[
        list[RankedCondition],
        Meta(description="Further conditions, by how much each changes what follows."),
    ]
    metadata: Annotated[CohortMetadata, Meta(description="How the answer was made.")]


class _Cohort(NamedTuple):
    """A cohort with the states that it is chosen from."""

    name: CohortName
    nearest: NearestStates
    expected_pct: list[float]
    metadata: CohortMetadata


async def open_cohort(
    queries: PatternQueries,
    source: SnapshotSource,
    params: CohortOpenParams,
    context: RequestContext,
) -> CohortResult:
    limits = queries.config.staleness_limits_ms
    as_of_ms = source.view(params.symbol).latest_ms(params.timestamp, *limits)
    name = CohortName(params.symbol, as_of_ms)
    return _described(await _find(queries, source, name, context))


async def refine_cohort(
    queries: PatternQueries,
    source: SnapshotSource,
    params: CohortRefineParams,
    context: RequestContext,
) -> CohortResult:
    name = CohortName.parse(params.cohort).refined(params.conditions)
    return _described(await _find(queries, source, name, context))


async def rank_cohort(
    queries: PatternQueries,
    source: SnapshotSource,
    params: CohortRankParams,
    context: RequestContext,
) -> CohortRankResult:
    cohort = await _find(queries, source, CohortName.parse(params.cohort), context)
    conditions = cohort.name.conditions
    await context.pause()
    return CohortRankResult(
        str(cohort.name),
        [*conditions],
        len(cohort.nearest.meeting(conditions).rows),
        rank_conditions(cohort.nearest, conditions),
        cohort.metadata,
    )


async def _find(
    queries: PatternQueries, source: SnapshotSource, name: CohortName, context: RequestContext
) -> _Cohort:
    started_s = time.perf_counter()
    view = source.view(name.symbol)
    if view.latest_ms(name.as_of_ms, *queries.config.staleness_limits_ms) != name.as_of_ms:
        raise InvalidInputError(
            f"the store has no usable state of {name.symbol} at {iso8601(name.as_of_ms)}; open a "
            "cohort with cohort_open, and take its name"
        )
    state = view.without_series(name.as_of_ms)
    context.end_stage("state")
    await context.pause()
    question = Question(state, name.as_of_ms)
    nearest = await queries.retriever.nearest_states(question, queries.defaults)
    context.end_stage("search")
    await context.pause()
    expected_pct = [float(state.column(field)[0]) for field in EXPECTED_VOLATILITY.values()]
    collection = queries.retriever.index.collection
    metadata = CohortMetadata(
        *(name.symbol, name.as_of_ms, queries.defaults.lookback_days),
        f"{collection.exchange or 'unknown'}/{collection.feature_version}",
        *(queries.retriever.space.space_id, collection.volatility_model),
        round((time.perf_counter() - started_s) * 1e6),
        context.request_id,
        across_holes(state),
        context.unknown_fields,
    )
    return _Cohort(name, nearest, expected_pct, metadata)


def _described(cohort: _Cohort) -> CohortResult:
    name, nearest, expected_pct, metadata = cohort
    expected = dict(zip(EXPECTED_VOLATILITY, expected_pct, strict=True))
    return CohortResult(
        str(name),
        [*name.conditions],
        {horizon: pct if pct == pct else None for horizon, pct in expected.items()},
        describe_cohort(nearest, name.conditions, expected_pct),
        metadata,
    )
