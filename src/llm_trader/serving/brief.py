"""A small answer, under 2 KB of JSON: its numbers stand where the whole one has them, rounded."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from llm_trader.retrieval.answer import Answer, Estimate, HorizonEvidence, Match
from llm_trader.timeframe import Millis

_MATCHES: Final = 5
_PCT_DIGITS: Final = 3
_SIMILARITY_DIGITS: Final = 4
# What bounds the size; unknown parameters may have any name.
_WARNINGS: Final = 2
_WARNING_CHARS: Final = 90


class BriefEstimate(msgspec.Struct, frozen=True):
    value: Annotated[float, Meta(description="The statistic of the episodes, %.")]
    base_rate: Annotated[
        float, Meta(description="The same statistic of all states of the window, %.")
    ]


class BriefHorizon(msgspec.Struct, frozen=True):
    mean: Annotated[BriefEstimate, Meta(description="Mean price change.")]
    p10: Annotated[BriefEstimate, Meta(description="10 % of the changes are below it.")]
    p50: Annotated[BriefEstimate, Meta(description="50 % of the changes are below it.")]
    p90: Annotated[BriefEstimate, Meta(description="90 % of the changes are below it.")]


class BriefEvidence(msgspec.Struct, frozen=True):
    verdict: Annotated[
        str, Meta(description="`informative`, `weak` or `none`; none means abstain.")
    ]
    reason: Annotated[str, Meta(description="Why, in words.")]
    horizons: Annotated[
        dict[str, BriefHorizon],
        Meta(description="The evidence by horizon: `15m`, `1h`, `4h` and `24h`."),
    ]


class BriefOutcome(msgspec.Struct, frozen=True):
    outcome_1h: Annotated[float | None, Meta(description="Price change within 1 hour, %.")]
    outcome_4h: Annotated[float | None, Meta(description="Price change within 4 hours, %.")]
    outcome_24h: Annotated[float | None, Meta(description="Price change within 24 hours, %.")]


class BriefMatch(msgspec.Struct, frozen=True):
    similarity: Annotated[float, Meta(description="Cosine similarity to the state of the query.")]
    timestamp: Annotated[Millis, Meta(description="Time of the past state, UTC milliseconds.")]
    outcomes: Annotated[BriefOutcome, Meta(description="What followed it.")]


class BriefMetadata(msgspec.Struct, frozen=True):
    as_of: Annotated[Millis, Meta(description="Time of the query, UTC milliseconds.")]
    state_as_of: Annotated[Millis, Meta(description="Time of the state, UTC milliseconds.")]
    request_id: Annotated[str, Meta(description="Id of the request in the server's log.")]
    warnings: Annotated[
        list[str],
        Meta(
            description="The first warnings and unknown parameters, shortened; the detail "
            "`normal` has all of them."
        ),
    ]


class BriefResult(msgspec.Struct, frozen=True):
    """The answer to a query with the detail `brief`. Numbers in % have three decimals."""

    matches: Annotated[list[BriefMatch], Meta(description="The five most similar past states.")]
    evidence: Annotated[BriefEvidence, Meta(description="What followed, beside base rates.")]
    metadata: Annotated[BriefMetadata, Meta(description="What the answer is about.")]


def brief(
    answer: Answer,
    *,
    as_of_ms: Millis,
    state_as_of_ms: Millis,
    request_id: str,
    warnings: list[str],
    unknown_fields: list[str],
) -> BriefResult:
    """The short form of an answer."""
    evidence = answer.evidence
    horizons = {name: _horizon(horizon) for name, horizon in evidence.horizons.items()}
    shown = _shortened([*warnings, *(f"unknown parameter {name}" for name in unknown_fields)])
    return BriefResult(
        [_match(match) for match in answer.matches[:_MATCHES]],
        BriefEvidence(evidence.verdict, evidence.reason, horizons),
        BriefMetadata(as_of_ms, state_as_of_ms, request_id, shown),
    )


def _horizon(horizon: HorizonEvidence) -> BriefHorizon:
    return BriefHorizon(*map(_estimate, (horizon.mean, horizon.p10, horizon.p50, horizon.p90)))


def _estimate(estimate: Estimate) -> BriefEstimate:
    value, base_rate = estimate.value, estimate.base_rate
    return BriefEstimate(round(value, _PCT_DIGITS), round(base_rate, _PCT_DIGITS))


def _match(match: Match) -> BriefMatch:
    outcomes = match.outcomes.outcome_1h, match.outcomes.outcome_4h, match.outcomes.outcome_24h
    return BriefMatch(
        round(match.similarity, _SIMILARITY_DIGITS),
        match.timestamp,
        BriefOutcome(*(_rounded(outcome) for outcome in outcomes)),
    )


def _rounded(outcome: float | None) -> float | None:
    return None if outcome is None else round(outcome, _PCT_DIGITS)


def _shortened(warnings: list[str]) -> list[str]:
    shown = [
        warning if len(warning) <= _WARNING_CHARS else f"{warning[: _WARNING_CHARS - 1]}…"
        for warning in warnings[:_WARNINGS]
    ]
    more = len(warnings) - _WARNINGS
    return [*shown, f"and {more} more"] if more > 0 else shown
