"""What tools answer: parts of the methods' results, small enough for a conversation.

Nothing in them differs when the same question is asked again, so that a receipt can be verified.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from llm_trader.llm.record.decisions import DecisionSummary
from llm_trader.market.series_ages import SeriesAge
from llm_trader.retrieval.answer import (
    BarrierForecast,
    Difference,
    Estimate,
    HorizonEvidence,
    Match,
    Novelty,
    Statistics,
)
from llm_trader.retrieval.cohort.outcomes import CohortOutcomes, RankedCondition
from llm_trader.serving.cohorts import CohortRankResult, CohortResult
from llm_trader.serving.decisions import DecisionsResult
from llm_trader.serving.mcp.receipts import Receipt
from llm_trader.serving.wire import (
    Freshness,
    GetSnapshotResult,
    QueryPatternsResult,
    StatsResult,
)
from llm_trader.snapshot.model import MarketSnapshot
from llm_trader.timeframe import Millis, iso8601

_SHOWN_LEVELS: Final = {"p5": 4, "p10": 9, "p25": 24, "p50": 49, "p75": 74, "p90": 89, "p95": 94}

_Date = Annotated[str, Meta(description="Time of the question, RFC 3339.")]
_StateDate = Annotated[str, Meta(description="Time of the state that was compared, RFC 3339.")]
_Warnings = Annotated[list[str], Meta(description="What to be careful about.")]
_Receipt = Annotated[
    Receipt | None, Meta(description="What makes this answer again: llm-trader receipt verify.")
]
_Verdict = Annotated[
    str, Meta(description="`informative`, `weak` or `none`; none means abstain, and is normal.")
]
_Reason = Annotated[str, Meta(description="Why, in words.")]


class SimilarStates(msgspec.Struct, frozen=True):
    """The past states most like the one in question, and what followed each of them."""

    symbol: str
    as_of: _Date
    state_as_of: _StateDate
    verdict: _Verdict
    reason: _Reason
    matches: Annotated[list[Match], Meta(description="The most similar states, nearest first.")]
    statistics: Annotated[Statistics, Meta(description="What followed the matches, summed up.")]
    warnings: _Warnings
    receipt: _Receipt = None

    @classmethod
    def of(cls, result: QueryPatternsResult, symbol: str) -> SimilarStates:
        evidence, metadata = result.evidence, result.metadata
        return cls(
            symbol=symbol,
            as_of=iso8601(metadata.as_of),
            state_as_of=iso8601(metadata.state_as_of),
            verdict=evidence.verdict,
            reason=evidence.reason,
            matches=result.matches,
            statistics=result.statistics,
            warnings=metadata.warnings,
        )


class ForecastHorizon(msgspec.Struct, frozen=True):
    """One horizon. `quantiles` and `p_up` are the forecast; `scale` and `direction` say what
    similar states add to it; `similar_p_up` has its base rate beside it.
    """

    expected_volatility_pct: Annotated[
        float | None, Meta(description="How far the price should move, %.")
    ]
    quantiles: Annotated[
        dict[str, float] | None,
        Meta(description="Price changes in % that 5, 10, ... 95 % of outcomes should be below."),
    ]
    p_up: Annotated[float | None, Meta(description="Probability of a rise, 0 to 1.")]
    band_80: Annotated[
        tuple[float, float] | None,
        Meta(description="Calibrated range in % for 8 of 10 outcomes; null without a calibration."),
    ]
    scale: Annotated[
        Difference | None, Meta(description="How far prices moved after similar states.")
    ]
    direction: Annotated[
        Difference | None, Meta(description="Share of rises after similar states, 0 to 1.")
    ]
    similar_p_up: Annotated[
        Estimate, Meta(description="Share of episodes after which the price rose, with interval.")
    ]
    effective_episodes: Annotated[
        float, Meta(description="Number of independent observations behind it.")
    ]
    summary: Annotated[str | None, Meta(description="All of this in words.")]

    @classmethod
    def of(cls, horizon: HorizonEvidence) -> ForecastHorizon:
        forecast, shown = horizon.forecast, None
        if forecast is not None:
            shown = {name: forecast.quantiles[place] for name, place in _SHOWN_LEVELS.items()}
        return cls(
            expected_volatility_pct=horizon.expected_volatility_pct,
            quantiles=shown,
            p_up=None if forecast is None else forecast.p_up,
            band_80=horizon.band_80,
            scale=horizon.scale,
            direction=horizon.direction,
            similar_p_up=horizon.p_up,
            effective_episodes=horizon.effective_episodes,
            summary=horizon.summary,
        )


class ForecastAnswer(msgspec.Struct, frozen=True):
    """What to expect, and how far to trust it."""

    symbol: str
    as_of: _Date
    state_as_of: _StateDate
    verdict: _Verdict
    reason: _Reason
    episodes: Annotated[int, Meta(description="Number of separate past episodes.")]
    novelty: Annotated[
        Novelty | None, Meta(description="How far the state is from everything known.")
    ]
    calibrated: Annotated[bool, Meta(description="Whether a calibration contributed.")]
    horizons: Annotated[
        dict[str, ForecastHorizon], Meta(description="By horizon: `15m`, `1h`, `4h` and `24h`.")
    ]
    barrier_forecasts: Annotated[
        list[BarrierForecast] | None,
        Meta(description="Chances of -2 and +3 % within 24h, then of the barriers in question."),
    ]
    warnings: _Warnings
    receipt: _Receipt = None

    @classmethod
    def of(cls, result: QueryPatternsResult, symbol: str) -> ForecastAnswer:
        evidence, metadata = result.evidence, result.metadata
        horizons = evidence.horizons.items()
        return cls(
            symbol=symbol,
            as_of=iso8601(metadata.as_of),
            state_as_of=iso8601(metadata.state_as_of),
            verdict=evidence.verdict,
            reason=evidence.reason,
            episodes=evidence.episodes,
            novelty=evidence.novelty,
            calibrated=evidence.calibrated,
            horizons={name: ForecastHorizon.of(horizon) for name, horizon in horizons},
            barrier_forecasts=evidence.barrier_forecasts,
            warnings=metadata.warnings,
        )


class _LastOfCohort(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that can be given by name only stand last, after those of the classes below."""

    warnings: _Warnings
    receipt: _Receipt = None


class _OfCohort(_LastOfCohort, frozen=True):
    """Which cohort an answer is about."""

    cohort: Annotated[str, Meta(description="Its name, for cohort_refine and cohort_rank.")]
    symbol: str
    as_of: _Date
    conditions: Annotated[list[str], Meta(description="The conditions that its states meet.")]

    @staticmethod
    def fields_of(result: CohortResult | CohortRankResult) -> dict[str, Any]:
        metadata = result.metadata
        return {
            "cohort": result.cohort,
            "symbol": metadata.symbol,
            "as_of": iso8601(metadata.as_of),
            "conditions": result.conditions,
            "warnings": metadata.warnings,
        }


class CohortAnswer(_OfCohort, frozen=True):
    """A cohort and what followed it. Its verdict allows for every cohort of this state that could
    have been asked about, so asking more changes nothing.
    """

    lookback_days: Annotated[int, Meta(description="Days that the window reaches back.")]
    expected_volatility_pct: Annotated[
        dict[str, float | None], Meta(description="How far the price should move, by horizon, %.")
    ]
    outcomes: Annotated[CohortOutcomes, Meta(description="What followed its states.")]

    @classmethod
    def of(cls, result: CohortResult, symbol: str) -> CohortAnswer:
        return cls(
            **cls.fields_of(result),
            lookback_days=result.metadata.lookback_days,
            expected_volatility_pct=result.expected_volatility_pct,
            outcomes=result.outcomes,
        )


class CohortRanking(_OfCohort, frozen=True):
    """Which further condition changes most what follows a cohort."""

    states: Annotated[int, Meta(description="Number of states in the cohort.")]
    ranking: Annotated[
        list[RankedCondition], Meta(description="Further conditions, the largest change first.")
    ]

    @classmethod
    def of(cls, result: CohortRankResult, symbol: str) -> CohortRanking:
        return cls(**cls.fields_of(result), states=result.states, ranking=result.ranking)


class MarketState(msgspec.Struct, frozen=True):
    """The market at a time, from the server's store."""

    symbol: str
    as_of: Annotated[str, Meta(description="Time of the state, RFC 3339.")]
    state: Annotated[MarketSnapshot, Meta(description="Its fields; null where unknown.")]
    data_age_seconds: Annotated[
        float | None, Meta(description="Age of the newest candle at the time in question.")
    ]
    feature_version: str
    receipt: _Receipt = None

    @classmethod
    def of(cls, result: GetSnapshotResult, symbol: str) -> MarketState:
        state = result.snapshot
        date = iso8601(state.timestamp)
        return cls(symbol, date, state, result.data_age_seconds, result.feature_version)


class SymbolStatus(msgspec.Struct, frozen=True):
    symbol: str
    index_end: Annotated[str | None, Meta(description="Newest state of the index, RFC 3339.")]
    store_end: Annotated[str | None, Meta(description="Close of the newest candle, RFC 3339.")]
    newest_state: Annotated[
        str | None, Meta(description="Newest state that a question can be about, RFC 3339.")
    ]
    state_age_seconds: Annotated[float | None, Meta(description="How long ago that is.")]
    index_behind_seconds: Annotated[
        float | None, Meta(description="How far the index is behind the store.")
    ]
    series: Annotated[list[SeriesAge], Meta(description="How old each series is.")]

    @classmethod
    def of(cls, fresh: Freshness) -> SymbolStatus:
        return cls(
            symbol=fresh.symbol,
            index_end=_date(fresh.index_end),
            store_end=_date(fresh.store_end),
            newest_state=_date(fresh.state_as_of),
            state_age_seconds=fresh.state_age_seconds,
            index_behind_seconds=fresh.index_behind_seconds,
            series=fresh.series,
        )


class DataStatus(msgspec.Struct, frozen=True):
    """What the server holds at this moment."""

    ready: Annotated[bool, Meta(description="Whether there are states to compare with.")]
    version: Annotated[str, Meta(description="Version of the server.")]
    symbols: Annotated[list[SymbolStatus], Meta(description="How far the data reach, by symbol.")]
    receipt: _Receipt = None

    @classmethod
    def of(cls, result: StatsResult, symbol: str) -> DataStatus:
        chosen = [fresh for fresh in result.freshness if symbol in ("", fresh.symbol)]
        return cls(result.ready, result.version, [SymbolStatus.of(fresh) for fresh in chosen])


class Decisions(msgspec.Struct, frozen=True):
    """The newest decisions on record. `recorded` is false where there never was one."""

    recorded: Annotated[bool, Meta(description="Whether there is a record of decisions.")]
    total: Annotated[int, Meta(description="Number of decisions on record.")]
    decisions: Annotated[list[DecisionSummary], Meta(description="The newest ones first.")]
    receipt: _Receipt = None

    @classmethod
    def of(cls, result: DecisionsResult, symbol: str) -> Decisions:
        return cls(result.recorded, result.total, result.decisions)


def _date(time_ms: Millis | None) -> str | None:
    return None if time_ms is None else iso8601(time_ms)
