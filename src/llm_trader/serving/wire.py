"""Parameters, results and error codes of the `rag.*` methods, field for field as on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from llm_trader import errors
from llm_trader.forecasts.scoring import KEPT_DAYS
from llm_trader.index.protocol import IndexInfo
from llm_trader.market.keys import SYMBOL_PATTERN
from llm_trader.market.series_ages import SeriesAge
from llm_trader.retrieval.answer import CalibrationUsed, Evidence, Match, Statistics
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.rpc.errors import (
    PROTOCOL_ERRORS,
    SERVER_ERROR,
    ErrorKind,
    ErrorObject,
    ErrorTable,
)
from llm_trader.rpc.params import MAX_ITEMS, Timeout
from llm_trader.serving.brief import BriefResult
from llm_trader.snapshot.model import OPTIONAL_FIELDS, SCALARS, SERIES, MarketSnapshot
from llm_trader.timeframe import MAX_TIME_MS, MIN_TIME_MS, Millis

SCHEMA_VERSION: Final = 1

REQUIRED_STATE: Final = (
    "price",
    "rsi_7",
    "rsi_14",
    "macd",
    "ema_20",
    "ema_20_4h",
    "ema_50_4h",
    "funding_rate",
    "open_interest_latest",
    "open_interest_avg_24h",
)

_POSITIVE: Final = ("price", "ema_20", "ema_20_4h", "ema_50_4h", "ema_ratio")
_NOT_NEGATIVE: Final = (
    *("open_interest_latest", "open_interest_avg_24h", "atr_3_4h", "atr_14_4h"),
    *("current_volume_4h", "avg_volume_4h", "volume_ratio"),
    *("missing_candles", "missing_candles_4h"),
    *("realized_volatility_1h", "realized_volatility_4h", "realized_volatility_24h"),
)
_BOUNDS: Final[dict[str, dict[str, float]]] = {
    **{name: {"gt": 0} for name in _POSITIVE},
    **{name: {"ge": 0} for name in _NOT_NEGATIVE},
    **{name: {"ge": 0, "le": 100} for name in ("rsi_7", "rsi_14", "rsi_14_4h")},
    "hour_of_day": {"ge": 0, "lt": 24},
    "funding_interval_hours": {"gt": 0, "le": 24},
}


_KINDS: Final = {field.name: field.type for field in msgspec.structs.fields(MarketSnapshot)}


def _state_field(name: str) -> tuple[Any, ...]:
    if name in SERIES:
        return name, Annotated[list[float | None], Meta(max_length=MAX_ITEMS)] | None, None
    described = _KINDS[name].__metadata__[0].description
    bounded = Annotated[float, Meta(description=described, **_BOUNDS.get(name, {}))]
    if name in REQUIRED_STATE:
        # A client of a market without them says so: null.
        return name, bounded | None if name in OPTIONAL_FIELDS else bounded
    return name, bounded | None, None


# The fields of `MarketSnapshot` with their bounds; the ten required ones stand first,
# of which open interest and funding may be null.
CurrentState: Any = msgspec.defstruct(
    "CurrentState",
    [_state_field(name) for name in dict.fromkeys((*REQUIRED_STATE, *SCALARS, *SERIES))],
    frozen=True,
    forbid_unknown_fields=True,
)

# The fields of `SearchSpec`, all of them optional: the server's settings hold the defaults.
QueryConfigParams: Any = msgspec.defstruct(
    "QueryConfigParams",
    [(f.name, f.type | UnsetType, UNSET) for f in msgspec.structs.fields(SearchSpec)],
    frozen=True,
    forbid_unknown_fields=True,
)

Symbol = Annotated[str, Meta(pattern=f"^{SYMBOL_PATTERN}$", description="such as BTCUSDT")]
Timestamp = Annotated[Millis, Meta(ge=MIN_TIME_MS, le=MAX_TIME_MS, description="UTC milliseconds")]


class Moment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    symbol: Symbol
    timestamp: Timestamp


class GetSnapshotParams(Moment, frozen=True, forbid_unknown_fields=True):
    timeout_ms: Timeout | None = None


class ForecastQualityParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All symbols without a `symbol`."""

    symbol: Symbol | None = None
    days: Annotated[int, Meta(ge=1, le=KEPT_DAYS, description="UTC days up to now that count.")] = (
        30
    )
    timeout_ms: Timeout | None = None


class PatternQuery(Moment, frozen=True, forbid_unknown_fields=True):
    """`current_state` is optional if the server has a market store."""

    current_state: CurrentState | None = None
    query_config: QueryConfigParams | None = None


class QueryPatternsParams(PatternQuery, frozen=True, forbid_unknown_fields=True):
    timeout_ms: Timeout | None = None


class QueryBatchParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`query_config` holds for all queries that do not say otherwise, field by field.

    A batch that is not done by its deadline answers the queries that it reached.
    """

    queries: Annotated[
        list[PatternQuery],
        Meta(min_length=1, max_length=MAX_ITEMS, description="The queries, 1 to 1,000."),
    ]
    query_config: QueryConfigParams | None = None
    timeout_ms: Timeout | None = None


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """`state_source` is `request`, `store`, or `request+store` if the store filled fields in.

    `as_of` is the time of the query, `state_as_of` of the state, `fields_completed_as_of` of the
    fields that the store filled in. `volatility_model` is the id of the model of the expected
    volatilities. If a calibration was not used, `warnings` say why. `index_end` is the newest state
    of the index, and `store_end` the close of the newest candle, that were known at `as_of`; null
    where there is none. `state_age_seconds` is `as_of` - `state_as_of`.
    """

    query_duration_ms: Annotated[
        int, Meta(description="Time that the query took in all, milliseconds.")
    ]
    embedding_duration_ms: Annotated[int, Meta(description="Time for its vectors, milliseconds.")]
    retrieval_duration_ms: Annotated[
        int, Meta(description="Time for search and evidence, milliseconds.")
    ]
    query_duration_us: Annotated[
        int, Meta(description="Time that the query took in all, microseconds.")
    ]
    filters_applied: Annotated[list[str], Meta(description="Names of the filters of the search.")]
    schema_version: Annotated[int, Meta(description="Version of this result.")]
    feature_version: Annotated[
        str, Meta(description="Version of the features, with their candles.")
    ]
    embedding_model: Annotated[str, Meta(description="Ids of the vector spaces compared in.")]
    as_of: Annotated[Millis, Meta(description="Time of the query, UTC milliseconds.")]
    state_as_of: Annotated[Millis, Meta(description="Time of the state, UTC milliseconds.")]
    vector: Annotated[str, Meta(description="What was compared: `state`, `text` or `hybrid`.")]
    state_source: Annotated[
        str,
        Meta(description="`request`, `store`, or `request+store` if the store filled fields in."),
    ]
    fields_completed: Annotated[list[str], Meta(description="Fields that the store filled in.")]
    fields_completed_as_of: Annotated[
        Millis | None, Meta(description="Time of these fields, UTC milliseconds.")
    ]
    features_missing: Annotated[list[str], Meta(description="Features left out of the comparison.")]
    unknown_fields: Annotated[
        list[str], Meta(description="Parameters that the server does not know.")
    ]
    warnings: Annotated[
        list[str], Meta(description="What could not be done, and what to be careful about.")
    ]
    collection: Annotated[str, Meta(description="Exchange and feature version of the index.")]
    points_eligible: Annotated[
        int,
        Meta(
            description="Number of past states that the query could see and that pass its filters."
        ),
    ]
    request_id: Annotated[str, Meta(description="Id of the request in the server's log.")]
    data_age_seconds: Annotated[
        float | None,
        Meta(
            description="Age of the newest candle at the query's time, seconds; null without a "
            "store."
        ),
    ]
    calibration: Annotated[
        CalibrationUsed | None, Meta(description="The calibration that was used; null without one.")
    ] = None
    volatility_model: Annotated[
        str | None, Meta(description="Id of the model of the expected volatilities.")
    ] = None
    index_end: Annotated[
        Millis | None,
        Meta(description="Newest state of the index known at `as_of`, UTC milliseconds."),
    ] = None
    store_end: Annotated[
        Millis | None,
        Meta(description="Close of the newest candle known at `as_of`, UTC milliseconds."),
    ] = None
    state_age_seconds: Annotated[float, Meta(description="`as_of` - `state_as_of`, seconds.")] = 0.0


class QueryPatternsResult(msgspec.Struct, frozen=True):
    matches: Annotated[
        list[Match], Meta(description="The most similar past states, nearest first.")
    ]
    statistics: Annotated[Statistics, Meta(description="What followed the matches, summed up.")]
    evidence: Annotated[
        Evidence,
        Meta(description="What followed more of them, beside base rates, and how far to trust it."),
    ]
    metadata: Annotated[Metadata, Meta(description="How the answer was made.")]


class BatchAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to one query: its result, whole or brief, or its error; the others are absent."""

    result: Annotated[
        QueryPatternsResult | None, Meta(description="What `rag.query_patterns` answers.")
    ] = None
    brief: Annotated[BriefResult | None, Meta(description="The same with the detail `brief`.")] = (
        None
    )
    error: Annotated[
        ErrorObject | None,
        Meta(
            description="Why the query has no answer: `code`, `message`, `data`; -32013 where the "
            "batch did not reach it by its deadline."
        ),
    ] = None


class BatchMetadata(msgspec.Struct, frozen=True):
    duration_us: Annotated[int, Meta(description="Time that the batch took, microseconds.")]
    request_id: Annotated[str, Meta(description="Id of the request in the server's log.")]
    unknown_fields: Annotated[
        list[str], Meta(description="Parameters that the server does not know.")
    ]
    refused: Annotated[int, Meta(description="Number of answers that are errors.")]


class QueryBatchResult(msgspec.Struct, frozen=True):
    answers: Annotated[
        list[BatchAnswer], Meta(description="An answer for each query, in their order.")
    ]
    metadata: Annotated[BatchMetadata, Meta(description="How the batch went.")]


class GetSnapshotResult(msgspec.Struct, frozen=True):
    """The newest snapshot at or before the requested time that a query can be about.

    It may lack open interest or funding.
    """

    snapshot: Annotated[MarketSnapshot, Meta(description="The state; [its fields](state.md).")]
    feature_version: Annotated[
        str, Meta(description="Version of the features, with their candles.")
    ]
    data_age_seconds: Annotated[
        float | None, Meta(description="Age of the newest candle at the requested time, seconds.")
    ]


class Freshness(msgspec.Struct, frozen=True):
    """How far index and store reach for a symbol; null where there is nothing.

    `index_end` is the newest state of the index, `store_end` the close of the newest candle, and
    `state_as_of` the newest state that the store gives for a query, `state_age_seconds` ago.
    `index_behind_seconds` says how much older `index_end` is than the newest state whose 24h
    outcome the store knows.
    """

    symbol: Annotated[str, Meta(description="The symbol.")]
    index_end: Annotated[
        Millis | None, Meta(description="Newest state of the index, UTC milliseconds.")
    ]
    store_end: Annotated[
        Millis | None, Meta(description="Close of the newest candle, UTC milliseconds.")
    ]
    state_as_of: Annotated[
        Millis | None,
        Meta(description="Newest state that the store gives for a query, UTC milliseconds."),
    ]
    state_age_seconds: Annotated[float | None, Meta(description="How long ago that is, seconds.")]
    index_behind_seconds: Annotated[
        float | None,
        Meta(
            description="How much older `index_end` is than the newest state whose 24h outcome "
            "the store knows, seconds."
        ),
    ]
    series: Annotated[
        list[SeriesAge], Meta(description="How old the newest row of each series is.")
    ] = []


class StatsResult(msgspec.Struct, frozen=True):
    """What the server holds. `ready`: the index has states to compare a query with."""

    version: Annotated[str, Meta(description="Version of the server.")]
    index: Annotated[IndexInfo, Meta(description="What the index holds.")]
    market_store: Annotated[
        str | None, Meta(description="Folder of the market store; null without one.")
    ]
    embedding_model: Annotated[str, Meta(description="Id of the space of the state vectors.")]
    queries_answered: Annotated[int, Meta(description="Queries answered since the start.")]
    queries_refused: Annotated[int, Meta(description="Queries refused since the start.")]
    freshness: Annotated[
        list[Freshness], Meta(description="How far index and store reach, by symbol.")
    ]
    ready: Annotated[
        bool, Meta(description="Whether the index has states to compare a query with.")
    ]
    workers: Annotated[
        int, Meta(description="Processes that answer; the numbers of queries are those of all.")
    ] = 1


_OTHER_FAULTS: Final = (
    errors.StoreLockedError,
    errors.InvalidDataError,
    errors.StoreError,
    errors.ExchangeError,
    errors.ArchiveError,
    errors.BudgetError,
)
_INDEX_ERRORS: Final = (
    errors.VectorIndexError,
    errors.OutdatedIndexError,
    errors.DamagedIndexError,
)

RAG_ERRORS: Final = ErrorTable(
    (
        *PROTOCOL_ERRORS.kinds,
        ErrorKind(SERVER_ERROR, PROTOCOL_ERRORS.titles[SERVER_ERROR], _OTHER_FAULTS, logged=True),
        ErrorKind(-32001, "Insufficient matches", (errors.InsufficientMatchesError,)),
        ErrorKind(-32002, "Symbol not found", (errors.SymbolNotFoundError,)),
        ErrorKind(-32003, "Vector database error", _INDEX_ERRORS, logged=True),
        ErrorKind(-32004, "Embedding error", (errors.EmbeddingError,)),
        ErrorKind(-32005, "Stale data", (errors.StaleDataError,)),
    )
)
