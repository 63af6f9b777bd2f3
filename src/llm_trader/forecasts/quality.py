"""How good served forecasts were: coverage, reliability and skill by horizon, with intervals.

Outcomes of one UTC day hang together, across symbols and as horizons overlap; so intervals count a
day as one observation. No I/O and no clock here.
"""

from __future__ import annotations

from math import inf, nan, sqrt
from statistics import NormalDist
from typing import Annotated, Final

import msgspec
import numpy as np
from msgspec import Meta

from llm_trader.arrays import Floats
from llm_trader.forecasts.scoring import (
    CALIBRATED,
    COMPARED,
    CRPS,
    IN_50,
    IN_80,
    IN_CALIBRATED,
    SCORED,
    UPS,
    ForecastScores,
    Scored,
    p_up_bins,
)
from llm_trader.retrieval.intervals import Interval, student_t, wilson
from llm_trader.timeframe import DAY_MS, HORIZONS, Millis

INTERVAL_LEVEL: Final = 0.9
WINDOW_DAYS: Final = 7
_Z: Final = NormalDist().inv_cdf((1 + INTERVAL_LEVEL) / 2)
# `student_t` has 3 digits from 5 degrees of freedom.
_LEAST_DAYS: Final = 6

Share = Annotated[list[float | None], Meta(description="Shares, 0 to 1; null where unknown.")]


class HorizonQuality(msgspec.Struct, frozen=True):
    """Scores of one horizon over all days. `rises` is the share of outcomes above 0."""

    horizon: Annotated[str, Meta(description="`15m`, `1h`, `4h` or `24h`.")]
    scored: Annotated[int, Meta(description="Forecasts whose outcome is known.")]
    days: Annotated[int, Meta(description="UTC days on which they ended.")]
    coverage_50: Annotated[
        Interval, Meta(description="Share of outcomes from 25 to 75 % of the forecast.")
    ]
    coverage_80: Annotated[
        Interval, Meta(description="Share of outcomes from 10 to 90 % of the forecast.")
    ]
    calibrated_scored: Annotated[
        int, Meta(description="Scored forecasts that had a calibrated band.")
    ]
    calibrated_coverage_80: Annotated[
        Interval, Meta(description="Share of outcomes in the calibrated band, where there was one.")
    ]
    crps: Annotated[float | None, Meta(description="Mean CRPS in % of the price; less is better.")]
    rises: Annotated[Interval, Meta(description="Share of outcomes above 0.")]


class RollingCoverage(msgspec.Struct, frozen=True):
    """Coverage of one horizon over the `window_days` up to each time."""

    horizon: Annotated[str, Meta(description="`15m`, `1h`, `4h` or `24h`.")]
    time: Annotated[list[Millis], Meta(description="Ends of the windows, UTC milliseconds.")]
    scored: Annotated[list[int], Meta(description="Scored forecasts of each window.")]
    coverage_50: Annotated[Share, Meta(description="Share of outcomes in the 50 % band.")]
    coverage_80: Annotated[Share, Meta(description="Share of outcomes in the 80 % band.")]
    coverage_80_low: Annotated[Share, Meta(description="Lower ends of its intervals.")]
    coverage_80_high: Annotated[Share, Meta(description="Upper ends of its intervals.")]
    calibrated_coverage_80: Annotated[
        Share, Meta(description="Share of outcomes in the calibrated band.")
    ]


class Reliability(msgspec.Struct, frozen=True):
    """How often the price rose where P(up) was about so high, of one horizon."""

    horizon: Annotated[str, Meta(description="`15m`, `1h`, `4h` or `24h`.")]
    p_up: Annotated[list[float], Meta(description="Mean P(up) of the forecasts of each bin.")]
    observed: Annotated[list[float], Meta(description="Share of them after which it rose.")]
    low: Annotated[Share, Meta(description="Lower ends of the intervals of `observed`.")]
    high: Annotated[Share, Meta(description="Upper ends of the intervals of `observed`.")]
    count: Annotated[list[int], Meta(description="Number of forecasts of each bin.")]


class Skill(msgspec.Struct, frozen=True):
    """1 - CRPS of the forecasts / CRPS of a reference, of one horizon; above 0 is better."""

    horizon: Annotated[str, Meta(description="`15m`, `1h`, `4h` or `24h`.")]
    reference: Annotated[
        str, Meta(description="`base_rate`, `rescaled`, `volatility` or `random`.")
    ]
    scored: Annotated[
        int, Meta(description="Scored forecasts that have the reference; others do not count.")
    ]
    skill: Annotated[Interval, Meta(description="Skill over all days.")]
    time: Annotated[list[Millis], Meta(description="Ends of the windows, UTC milliseconds.")]
    rolling: Annotated[
        list[float | None], Meta(description="Skill over the `window_days` up to each time.")
    ]
    rolling_low: Annotated[
        list[float | None],
        Meta(description="Lower ends of its intervals; null with fewer than 6 days."),
    ]
    rolling_high: Annotated[list[float | None], Meta(description="Upper ends of its intervals.")]


class Reference(msgspec.Struct, frozen=True):
    """A reference of the evaluation, and whether served forecasts can be compared with it."""

    name: Annotated[str, Meta(description="`base_rate`, `rescaled`, `volatility` or `random`.")]
    available: Annotated[bool, Meta(description="Whether the journal has its numbers.")]
    reason: Annotated[str, Meta(description="Why, in words.")]


class Miss(msgspec.Struct, frozen=True):
    """An outcome outside the 80 % band that was served, in % change."""

    symbol: Annotated[str, Meta(description="Symbol.")]
    as_of: Annotated[Millis, Meta(description="Time of the state, UTC milliseconds.")]
    horizon: Annotated[str, Meta(description="`15m`, `1h`, `4h` or `24h`.")]
    low: Annotated[float, Meta(description="Lower end of the band, calibrated where it was, %.")]
    high: Annotated[float, Meta(description="Upper end of the band, %.")]
    outcome: Annotated[float, Meta(description="Price change that followed, %.")]
    p_up: Annotated[float, Meta(description="Probability of a rise that was served, 0 to 1.")]
    forecast_at: Annotated[Millis, Meta(description="When it was served, UTC milliseconds.")]

    @classmethod
    def of(cls, scored: Scored) -> Miss:
        return cls(
            *(scored.symbol, scored.as_of_ms, scored.horizon, scored.low, scored.high),
            *(scored.outcome, scored.p_up, scored.served_ms),
        )


class Unscored(msgspec.Struct, frozen=True):
    """Forecasts without a score, of all symbols."""

    no_outcome: Annotated[
        int, Meta(description="Those at whose horizon the store has no candle.")
    ] = 0
    memory: Annotated[int, Meta(description="Those that waited with too many others.")] = 0


class ForecastQuality(msgspec.Struct, frozen=True, kw_only=True):
    """How good the forecasts were that this server gave about the present.

    Of each symbol and quarter-hour the first one counts. Lists have an entry for each horizon.
    """

    recorded: Annotated[bool, Meta(description="Whether the server keeps a journal of forecasts.")]
    since: Annotated[Millis, Meta(description="Begin of the first day, UTC milliseconds.")]
    until: Annotated[Millis, Meta(description="The present time, UTC milliseconds.")]
    waiting: Annotated[
        int, Meta(description="Forecasts with an outcome that is not known yet.")
    ] = 0
    unscored: Annotated[Unscored, Meta(description="Forecasts without a score.")] = Unscored()
    catching_up: Annotated[
        bool, Meta(description="Whether the server still reads its journal after a start.")
    ] = False
    window_days: Annotated[
        int, Meta(description="Length of the windows of rolling numbers, days.")
    ] = WINDOW_DAYS
    interval_level: Annotated[
        float, Meta(description="Share of cases in which an interval holds the true value, 0 to 1.")
    ] = INTERVAL_LEVEL
    horizons: Annotated[list[HorizonQuality], Meta(description="Scores over all days.")] = (
        msgspec.field(default_factory=list)
    )
    rolling: Annotated[list[RollingCoverage], Meta(description="Coverage over time.")] = (
        msgspec.field(default_factory=list)
    )
    reliability: Annotated[list[Reliability], Meta(description="Reliability of P(up).")] = (
        msgspec.field(default_factory=list)
    )
    skill: Annotated[list[Skill], Meta(description="Skill, by horizon and reference.")] = (
        msgspec.field(default_factory=list)
    )
    references: Annotated[
        list[Reference], Meta(description="The references of the evaluation.")
    ] = msgspec.field(default_factory=list)
    misses: Annotated[
        list[Miss], Meta(description="The newest outcomes outside their band, at most 50.")
    ] = msgspec.field(default_factory=list)


_NEW: Final = "; lines of former versions lack it and are not counted"
REFERENCES: Final = [
    Reference("base_rate", True, "each answer names the quantiles of its window"),
    Reference(
        "rescaled",
        True,
        "the journal has the outcomes of the window in units of the volatility of the last 24h"
        + _NEW,
    ),
    Reference(
        "volatility",
        True,
        "the journal has the forecast without its neighbours; over 24h it is the forecast itself",
    ),
    Reference(
        "random",
        True,
        "the journal has the forecast with past states drawn at random as its neighbours; over 24h "
        "it is the forecast itself" + _NEW,
    ),
]


def quality_of(
    scores: ForecastScores,
    symbol: str | None,
    days: int,
    now_ms: Millis,
    *,
    catching_up: bool = False,
) -> ForecastQuality:
    """Of the last days up to now, of one symbol or of all."""
    last_day = now_ms // DAY_MS
    first_day = last_day - days + 1
    # The first window reaches further back.
    sums = scores.by_day(symbol, first_day - WINDOW_DAYS + 1, last_day)
    time_ms = [min((day + 1) * DAY_MS, now_ms) for day in range(first_day, last_day + 1)]
    shown = sums[WINDOW_DAYS - 1 :]
    since_ms = first_day * DAY_MS
    return ForecastQuality(
        recorded=True,
        since=since_ms,
        until=now_ms,
        waiting=len(scores.waiting_of(symbol)),
        unscored=Unscored(**scores.unscored),
        catching_up=catching_up,
        horizons=[_horizon(name, shown[:, row]) for row, name in enumerate(HORIZONS)],
        rolling=[_rolling(name, sums[:, row], time_ms) for row, name in enumerate(HORIZONS)],
        reliability=[_reliability(name, shown[:, row]) for row, name in enumerate(HORIZONS)],
        skill=[
            _skill(name, reference, sums[:, row], time_ms)
            for row, name in enumerate(HORIZONS)
            for reference in COMPARED
        ],
        references=REFERENCES,
        misses=[Miss.of(miss) for miss in scores.misses(symbol) if miss.as_of_ms >= since_ms],
    )


def not_recorded(days: int, now_ms: Millis) -> ForecastQuality:
    """The quality where no journal is kept."""
    since_ms = max(now_ms // DAY_MS - days + 1, 0) * DAY_MS
    return ForecastQuality(recorded=False, since=since_ms, until=now_ms)


def share_of(hits: Floats, counts: Floats) -> Interval:
    """The share of hits by day (days,) with Wilson's interval, for as many observations as the
    variance between days amounts to.
    """
    known = counts > 0
    hits, counts = hits[known], counts[known]
    if not len(counts):
        return Interval.of(nan)
    days, total = len(counts), float(counts.sum())
    share = float(hits.sum()) / total
    variance = _ratio_variance(hits, counts, share)
    if not 0 < share < 1:
        effective = float(days)  # days that all missed, or all hit, show no variance
    else:
        effective = share * (1 - share) / variance if variance else total
    return Interval.of(share, *wilson(share, min(max(effective, 1.0), total), _Z))


def skill_of(losses: Floats, reference: Floats) -> Interval:
    """1 - losses / losses of a reference, summed by day (days,)."""
    known = reference > 0
    losses, reference = losses[known], reference[known]
    if not len(losses):
        return Interval.of(nan)
    ratio = float(losses.sum() / reference.sum())
    days = len(losses)
    if days < _LEAST_DAYS:
        return Interval.of(1 - ratio)
    reach = student_t(_Z, days - 1) * sqrt(_ratio_variance(losses, reference, ratio))
    return Interval.of(1 - ratio, 1 - ratio - reach, 1 - ratio + reach)


def _ratio_variance(parts: Floats, wholes: Floats, ratio: float) -> float:
    """The variance of sum(parts) / sum(wholes), of days as observations (Cochran 1977, 6.4)."""
    days = len(parts)
    if days < 2:
        return inf
    squares = float(np.square(parts - ratio * wholes).sum())
    return days / (days - 1) * squares / float(wholes.sum()) ** 2


def _horizon(name: str, sums: Floats) -> HorizonQuality:
    """Of the sums of one horizon (days, sums)."""
    counts, calibrated = sums[:, SCORED], sums[:, CALIBRATED]
    scored = round(float(counts.sum()))
    return HorizonQuality(
        name,
        scored,
        int(np.count_nonzero(counts)),
        share_of(sums[:, IN_50], counts),
        share_of(sums[:, IN_80], counts),
        round(float(calibrated.sum())),
        share_of(sums[:, IN_CALIBRATED], calibrated),
        float(sums[:, CRPS].sum()) / scored if scored else None,
        share_of(sums[:, UPS], counts),
    )


def _rolling(name: str, sums: Floats, time_ms: list[Millis]) -> RollingCoverage:
    windows = [sums[start : start + WINDOW_DAYS] for start in range(len(time_ms))]
    counts = [window[:, SCORED] for window in windows]
    inner, bands = (
        [share_of(window[:, hits], n) for window, n in zip(windows, counts, strict=True)]
        for hits in (IN_50, IN_80)
    )
    calibrated = [share_of(window[:, IN_CALIBRATED], window[:, CALIBRATED]) for window in windows]
    return RollingCoverage(
        name,
        time_ms,
        [round(float(n.sum())) for n in counts],
        [share.value for share in inner],
        [share.value for share in bands],
        [share.low for share in bands],
        [share.high for share in bands],
        [share.value for share in calibrated],
    )


def _reliability(name: str, sums: Floats) -> Reliability:
    by_bin = p_up_bins(sums)  # (days, bins, 3)
    filled = np.flatnonzero(by_bin[..., 0].sum(axis=0))
    counts = by_bin[..., 0].sum(axis=0)[filled]
    shares = [share_of(by_bin[:, place, 2], by_bin[:, place, 0]) for place in filled]
    return Reliability(
        name,
        (by_bin[..., 1].sum(axis=0)[filled] / counts).tolist(),
        (by_bin[..., 2].sum(axis=0)[filled] / counts).tolist(),
        [share.low for share in shares],
        [share.high for share in shares],
        counts.astype(np.int64).tolist(),
    )


def _skill(name: str, reference: str, sums: Floats, time_ms: list[Millis]) -> Skill:
    places = COMPARED[reference]
    losses, others = sums[:, places.forecast], sums[:, places.reference]
    rolling = [
        skill_of(losses[start : start + WINDOW_DAYS], others[start : start + WINDOW_DAYS])
        for start in range(len(time_ms))
    ]
    shown = slice(WINDOW_DAYS - 1, None)
    return Skill(
        name,
        reference,
        round(float(sums[shown, places.scored].sum())),
        skill_of(losses[shown], others[shown]),
        time_ms,
        [skill.value for skill in rolling],
        [skill.low for skill in rolling],
        [skill.high for skill in rolling],
    )
