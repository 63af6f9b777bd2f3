"""The tools: all of them only read. Each calls one method of the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from llm_trader.errors import InvalidInputError
from llm_trader.retrieval.search_spec import Horizon
from llm_trader.rpc.errors import FieldError, InvalidParamsError
from llm_trader.serving.cohorts import Condition, Name
from llm_trader.serving.mcp import answers
from llm_trader.serving.wire import Symbol
from llm_trader.timeframe import MAX_TIME_MS, MIN_TIME_MS, Millis, iso8601, parse_rfc3339

AsOf = Annotated[
    str | None,
    Meta(
        description="Time of the question, RFC 3339, such as 2026-03-20T12:00:00Z: only what was "
        "known by then is used. Leave it out for now.",
    ),
]


class _Arguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True): ...


class _Question(_Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    symbol: Symbol
    as_of: AsOf = None


class SimilarStatesArguments(_Question, frozen=True, kw_only=True, forbid_unknown_fields=True):
    top_k: Annotated[int, Meta(ge=1, le=20, description="Largest number of matches.")] = 5
    lookback_days: (
        Annotated[int, Meta(ge=1, le=365, description="Days that are searched.")] | UnsetType
    ) = UNSET
    min_similarity: (
        Annotated[float, Meta(ge=0, le=1, description="Least similarity of a match.")] | UnsetType
    ) = UNSET


class ForecastArguments(_Question, frozen=True, kw_only=True, forbid_unknown_fields=True):
    horizons: (
        Annotated[list[Horizon], Meta(min_length=1, max_length=4, description="Horizons.")]
        | UnsetType
    ) = UNSET
    lookback_days: (
        Annotated[int, Meta(ge=1, le=365, description="Days that are searched.")] | UnsetType
    ) = UNSET
    stop_pct: (
        Annotated[
            float,
            Meta(
                gt=0, lt=100, description="Distance of a stop below the price in %, with a target."
            ),
        ]
        | UnsetType
    ) = UNSET
    target_pct: (
        Annotated[
            float, Meta(gt=0, description="Distance of a target above the price in %, with a stop.")
        ]
        | UnsetType
    ) = UNSET


class CohortOpenArguments(_Question, frozen=True, kw_only=True, forbid_unknown_fields=True): ...


class CohortRefineArguments(_Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    cohort: Name
    conditions: Annotated[
        list[Condition],
        Meta(min_length=1, max_length=3, description="Conditions to add, one of each kind."),
    ]


class CohortRankArguments(_Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    cohort: Name


class MarketStateArguments(_Question, frozen=True, kw_only=True, forbid_unknown_fields=True): ...


class DataStatusArguments(_Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    symbol: Annotated[Symbol | None, Meta(description="One symbol; all without it.")] = None


class DecisionsArguments(_Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    symbol: Annotated[Symbol | None, Meta(description="One symbol; all without it.")] = None
    limit: Annotated[int, Meta(ge=1, le=50, description="Most decisions of the answer.")] = 10


@dataclass(frozen=True, slots=True)
class Tool:
    """`params` makes the parameters of the `method` from complete arguments; `answer` makes the
    answer from its result and the symbol, if the arguments have one.
    """

    name: str
    title: str
    description: str
    arguments_type: type[msgspec.Struct]
    method: str
    params: Callable[[Any], dict[str, Any]]
    answer_type: type[msgspec.Struct]
    answer: Callable[[Any, str], Any]
    reproducible: bool = True


def with_time(arguments: Any, now_ms: Millis | None) -> Any:
    """The arguments with the time that they leave out. Raises `InvalidInputError`."""
    if not isinstance(arguments, _Question):
        return arguments
    if arguments.as_of is not None:
        _time_of(arguments.as_of)
        return arguments
    if now_ms is None:
        raise InvalidInputError("this server has no clock; say the time with as_of")
    return msgspec.structs.replace(arguments, as_of=iso8601(now_ms))


def time_of(arguments: Any) -> Millis | None:
    """The time of complete arguments, where they have one."""
    return _time_of(arguments.as_of or "") if isinstance(arguments, _Question) else None


def _time_of(text: str) -> Millis:
    try:
        time_ms = parse_rfc3339(text)
    except InvalidInputError as error:
        raise InvalidParamsError([FieldError("as_of", f"is no time: {error.message}")]) from None
    if not MIN_TIME_MS <= time_ms <= MAX_TIME_MS:
        raise InvalidParamsError([FieldError("as_of", "is too far from now")])
    return time_ms


def _moment(arguments: _Question) -> dict[str, Any]:
    return {"symbol": arguments.symbol, "timestamp": time_of(arguments)}


def _query(arguments: _Question) -> dict[str, Any]:
    given = msgspec.structs.asdict(arguments)
    config = {name: given[name] for name in given if name not in ("symbol", "as_of")}
    return _moment(arguments) | {
        "query_config": {n: v for n, v in config.items() if v is not UNSET}
    }


def _as_given(arguments: msgspec.Struct) -> dict[str, Any]:
    given = msgspec.structs.asdict(arguments)
    return {name: value for name, value in given.items() if value is not None}


TOOLS: Final = (
    Tool(
        "similar_states",
        "Similar past states",
        "The past states of a market most like the state at a time, nearest first, with what "
        "followed each of them within 15 minutes to 24 hours.",
        SimilarStatesArguments,
        "rag.query_patterns",
        _query,
        answers.SimilarStates,
        answers.SimilarStates.of,
    ),
    Tool(
        "forecast",
        "Forecast with evidence",
        "How far the price should move within 15 minutes to 24 hours, the chances of a rise and of "
        "a stop and a target, and a verdict on whether similar states add anything.",
        ForecastArguments,
        "rag.query_patterns",
        _query,
        answers.ForecastAnswer,
        answers.ForecastAnswer.of,
    ),
    Tool(
        "cohort_open",
        "Open a cohort",
        "Opens a cohort: the tenth of past states that is most like the state at a time, and what "
        "followed it beside what usually follows.",
        CohortOpenArguments,
        "rag.cohort_open",
        _moment,
        answers.CohortAnswer,
        answers.CohortAnswer.of,
    ),
    Tool(
        "cohort_refine",
        "Refine a cohort",
        "Keeps only those states of a cohort that meet further conditions, such as "
        "funding=negative. The verdict allows for every cohort that could be asked about.",
        CohortRefineArguments,
        "rag.cohort_refine",
        _as_given,
        answers.CohortAnswer,
        answers.CohortAnswer.of,
    ),
    Tool(
        "cohort_rank",
        "Rank conditions of a cohort",
        "Which further condition changes most what follows the states of a cohort, and whether "
        "that is more than chance.",
        CohortRankArguments,
        "rag.cohort_rank",
        _as_given,
        answers.CohortRanking,
        answers.CohortRanking.of,
    ),
    Tool(
        "market_state",
        "Market state",
        "The state of a market at a time: price, indicators, funding, open interest, volatility.",
        MarketStateArguments,
        "rag.get_snapshot",
        _moment,
        answers.MarketState,
        answers.MarketState.of,
    ),
    Tool(
        "data_status",
        "Status of the data",
        "Which symbols the server knows, how far their data reach, and how old they are.",
        DataStatusArguments,
        "rag.stats",
        lambda arguments: {},
        answers.DataStatus,
        answers.DataStatus.of,
        reproducible=False,
    ),
    Tool(
        "decisions",
        "Decisions on record",
        "The newest decisions of the language model on record, with reasons and costs.",
        DecisionsArguments,
        "rag.list_decisions",
        _as_given,
        answers.Decisions,
        answers.Decisions.of,
        reproducible=False,
    ),
)
