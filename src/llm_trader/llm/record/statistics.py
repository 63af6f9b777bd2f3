"""What decisions cost, and what followed them. No I/O here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from math import nan, sqrt
from statistics import NormalDist, fmean, variance
from typing import Final, NamedTuple, TypeVar

import msgspec
import numpy as np

from llm_trader.llm.prompt.render import Arm
from llm_trader.llm.record.decisions import DecisionSummary
from llm_trader.retrieval.intervals import Interval, student_t, wilson
from llm_trader.timeframe import HORIZONS, Millis, utc_date

T = TypeVar("T")
K = TypeVar("K", int, tuple[str, str], tuple[str, str, str, str])

INTERVAL_LEVEL: Final = 0.9
_Z: Final = NormalDist().inv_cdf((1 + INTERVAL_LEVEL) / 2)
_BANDS: Final = 10


class DecisionGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Decisions of one origin, model and arm. The three kinds of HOLD are counted apart."""

    origin: str
    provider: str | None
    model: str | None
    arm: Arm
    decisions: int
    long: int
    short: int
    hold_model: int
    hold_error: int
    hold_guard: int
    cost_usd: float
    paid_usd: float
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    latency_p50_ms: float | None
    latency_p90_ms: float | None


class DailyCost(msgspec.Struct, frozen=True, kw_only=True):
    """What the decisions on a symbol cost that were made on a UTC day, such as `2026-03-20`."""

    day: str
    symbol: str
    decisions: int
    cost_usd: float
    paid_usd: float


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    """What followed LONG and SHORT decisions over the horizon, in the direction of each.

    `hit_rate` is the share that the price moved with, `mean_pct` its mean move with the decision,
    before costs. Decisions whose horizons overlap count as one in `effective`, from which the
    intervals are made.
    """

    decisions: int
    effective: int
    confidence: float | None
    hit_rate: Interval
    mean_pct: Interval


class GroupOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """`unknown` decisions have no outcome yet, or the store lacks it."""

    origin: str
    provider: str | None
    model: str | None
    arm: Arm
    unknown: int
    followed: Followed


class ConfidenceBand(msgspec.Struct, frozen=True, kw_only=True):
    """Decisions whose confidence is from `low` to below `high`; the last band includes 1."""

    low: float
    high: float
    followed: Followed


class DecisionStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """`outcomes` and `bands` are about LONG and SHORT alone."""

    horizon: str
    interval_level: float
    decisions: int
    groups: list[DecisionGroup]
    daily_costs: list[DailyCost]
    outcomes: list[GroupOutcome]
    bands: list[ConfidenceBand]


class _Trade(NamedTuple):
    symbol: str
    as_of_ms: Millis
    confidence: float | None
    move_pct: float


def decision_statistics(
    decisions: Sequence[DecisionSummary], outcomes_pct: Mapping[int, float], horizon: str
) -> DecisionStatistics:
    """`outcomes_pct` has the price change over the horizon by the id of a decision."""
    groups = [members for _, members in _grouped(decisions, _group_of)]
    trades = [trade for one in decisions if (trade := _trade(one, outcomes_pct))]
    confident = [trade for trade in trades if trade.confidence is not None]
    return DecisionStatistics(
        horizon=horizon,
        interval_level=INTERVAL_LEVEL,
        decisions=len(decisions),
        groups=[_group(members) for members in groups],
        daily_costs=[_daily_cost(members) for _, members in _grouped(decisions, _day_and_symbol)],
        outcomes=[
            outcome for members in groups if (outcome := _outcome(members, outcomes_pct, horizon))
        ],
        bands=[
            ConfidenceBand(
                low=band / _BANDS, high=(band + 1) / _BANDS, followed=_followed(members, horizon)
            )
            for band, members in _grouped(confident, _band)
        ],
    )


def _group_of(one: DecisionSummary) -> tuple[str, str, str, str]:
    return one.origin, one.provider or "", one.model or "", one.arm


def _day_and_symbol(one: DecisionSummary) -> tuple[str, str]:
    return utc_date(one.created_at_ms).isoformat(), one.symbol


def _daily_cost(members: Sequence[DecisionSummary]) -> DailyCost:
    day, symbol = _day_and_symbol(members[0])
    return DailyCost(
        day=day,
        symbol=symbol,
        decisions=len(members),
        cost_usd=sum(one.costs.cost_usd for one in members),
        paid_usd=sum(one.costs.paid_usd for one in members),
    )


def _band(trade: _Trade) -> int:
    return min(int((trade.confidence or 0.0) * _BANDS), _BANDS - 1)


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> list[tuple[K, list[T]]]:
    return [(name, list(members)) for name, members in groupby(sorted(items, key=key), key)]


def _group(members: Sequence[DecisionSummary]) -> DecisionGroup:
    first = members[0]
    actions = [one.decision.hold_reason or one.decision.action for one in members]
    latencies = [one.costs.latency_ms for one in members if one.costs.latency_ms > 0]
    p50, p90 = np.quantile(latencies, [0.5, 0.9]).tolist() if latencies else (None, None)
    return DecisionGroup(
        origin=first.origin,
        provider=first.provider,
        model=first.model,
        arm=first.arm,
        decisions=len(members),
        long=actions.count("LONG"),
        short=actions.count("SHORT"),
        hold_model=actions.count("model"),
        hold_error=actions.count("error"),
        hold_guard=actions.count("guard"),
        cost_usd=sum(one.costs.cost_usd for one in members),
        paid_usd=sum(one.costs.paid_usd for one in members),
        input_tokens=sum(one.costs.input_tokens for one in members),
        output_tokens=sum(one.costs.output_tokens for one in members),
        cached_input_tokens=sum(one.costs.cached_input_tokens for one in members),
        latency_p50_ms=p50,
        latency_p90_ms=p90,
    )


def _outcome(
    members: Sequence[DecisionSummary], outcomes_pct: Mapping[int, float], horizon: str
) -> GroupOutcome | None:
    sided = [one for one in members if one.decision.action != "HOLD"]
    if not sided:
        return None
    trades = [trade for one in sided if (trade := _trade(one, outcomes_pct))]
    first = members[0]
    return GroupOutcome(
        origin=first.origin,
        provider=first.provider,
        model=first.model,
        arm=first.arm,
        unknown=len(sided) - len(trades),
        followed=_followed(trades, horizon),
    )


def _trade(one: DecisionSummary, outcomes_pct: Mapping[int, float]) -> _Trade | None:
    outcome_pct = outcomes_pct.get(one.id)
    if outcome_pct is None or one.decision.action == "HOLD":
        return None
    side = 1 if one.decision.action == "LONG" else -1
    return _Trade(one.symbol, one.as_of_ms, one.decision.confidence, side * outcome_pct)


def _followed(trades: Sequence[_Trade], horizon: str) -> Followed:
    n = _effective(trades, HORIZONS[horizon])
    confidences = [trade.confidence for trade in trades if trade.confidence is not None]
    hit_rate = mean = Interval(None, None, None)
    if trades:
        share = fmean(trade.move_pct > 0 for trade in trades)
        hit_rate = Interval.of(share, *wilson(share, n, _Z))
        mean = _mean([trade.move_pct for trade in trades], n)
    return Followed(
        decisions=len(trades),
        effective=n,
        confidence=fmean(confidences) if confidences else None,
        hit_rate=hit_rate,
        mean_pct=mean,
    )


def _mean(moves_pct: Sequence[float], n: int) -> Interval:
    mean = fmean(moves_pct)
    if n < 2:
        return Interval.of(mean, nan, nan)
    reach = student_t(_Z, n - 1) * sqrt(variance(moves_pct) / n)
    return Interval.of(mean, mean - reach, mean + reach)


def _effective(trades: Iterable[_Trade], horizon_ms: Millis) -> int:
    """The largest number of decisions whose horizons do not overlap; symbols count apart."""
    count, ends = 0, dict[str, Millis]()
    for trade in sorted(trades, key=lambda trade: trade.as_of_ms):
        if trade.as_of_ms >= ends.get(trade.symbol, trade.as_of_ms):
            count += 1
            ends[trade.symbol] = trade.as_of_ms + horizon_ms
    return count
