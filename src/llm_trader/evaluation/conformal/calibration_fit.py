"""From past evidence to a calibration: conformal margins, and where neighbours had skill.

1. each query's band is the one the server gives: p10 and p90 of its neighbours' outcomes, fully
   rescaled; its score is by how far what followed left that band, in units of its volatility
2. a margin is the finite-sample 80 % quantile of the scores of the last weeks (conformalised
   quantile regression: Romano, Patterson and Candès 2019), made anew at each UTC midnight from
   what was known by then
3. the last part of the time is held out: there each outcome is counted against a margin made
   before it was known, and forecasts are scored against the base rate

Markets drift, so the scores are not exchangeable over months: a margin of half a year covers too
little, or too much, in the next quarter. Weeks follow the drift; `after_kept_days` tells what a
margin is worth that was not made anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from llm_trader import __version__
from llm_trader.arrays import Floats, Mask, Times
from llm_trader.embedding.features import VOLATILITY_FLOOR
from llm_trader.errors import InvalidInputError
from llm_trader.evaluation.dataset import Dataset
from llm_trader.evaluation.forecast.ensembles import ForecastRule, horizon_of, losses_beside_base
from llm_trader.evaluation.forecast.neighbour_search import (
    Counted,
    Neighbours,
    Search,
    find_neighbours,
)
from llm_trader.evaluation.forecast.skills import block_of
from llm_trader.evaluation.significance import mean_interval, skill_interval
from llm_trader.index.ingestion import Spaces
from llm_trader.index.points import STATE, PointTable
from llm_trader.progress import Progress, no_progress
from llm_trader.retrieval.calibration import (
    BAND_LEVEL,
    SCHEMA_VERSION,
    Calibration,
    Coverage,
    HorizonCalibration,
    Scope,
)
from llm_trader.retrieval.intervals import Interval
from llm_trader.retrieval.statistics import quantiles
from llm_trader.snapshot.outcome import HORIZONS, LONGEST_HORIZON_MS
from llm_trader.timeframe import DAY_MS, MINUTE_MS, Millis, iso8601

WINDOW_DAYS: Final = 60
LEAST_EFFECTIVE_SCORES: Final = 10
KEPT_DAYS: Final = (7, 30, 60)

# Bonferroni's rule: one of the horizons shows skill by chance in 1 of 20 calibrations, at most.
INTERVAL_LEVEL: Final = 1 - 0.05 / len(HORIZONS)

_BAND: Final = np.array([[0.1, 0.9]])
_SERVED: Final = ForecastRule()  # fully rescaled, of neighbours alone, as evidence is


class Scores(NamedTuple):
    """Of n queries at one horizon, in the order of time, those of several symbols at one time
    beside each other: `time_ms`, `symbol` as a number, `score` in units of volatility, and the
    losses of the forecast and of the base rate treated alike. NaN is not known.
    """

    time_ms: Times
    symbol: npt.NDArray[np.intp]
    score: Floats
    forecast_loss: Floats
    base_loss: Floats


class Fitted(NamedTuple):
    """A calibration, and by horizon the scores that it was made of."""

    calibration: Calibration
    scores: dict[str, Scores]


class Measuring(NamedTuple):
    """`step_ms` between queries; the states from `held_out_from_ms` on are held out."""

    step_ms: Millis
    held_out_from_ms: Millis
    seed: int


def fit(
    dataset: Dataset,
    spaces: Spaces,
    search: Search,
    *,
    step_ms: Millis,
    holdout: float = 0.3,
    seed: int = 0,
    created_at: str,
    rules: Mapping[str, ForecastRule] | None = None,
    progress: Progress = no_progress,
) -> Fitted:
    """Fit on a data set, whose last `holdout` of time is held out to measure.

    `rules` say which forecast's skill is measured; by default that of the evidence as it is
    served. Raises `InvalidInputError` where there are too few queries to fit on or to measure.
    """
    rules = rules or dict.fromkeys(HORIZONS, _SERVED)
    _refuse_unserved(search, holdout)
    scores = _scored(dataset, search, rules, step_ms, seed, progress)
    known = np.isfinite(scores[next(iter(HORIZONS))].score)
    if not known.any():
        raise InvalidInputError(
            f"no query from {iso8601(dataset.start_ms)} to {iso8601(dataset.end_ms)} has "
            f"{search.evidence_k} episodes within {search.lookback_days} days; import older data, "
            "or look back less far"
        )
    times = scores[next(iter(HORIZONS))].time_ms[known]
    first_ms, last_ms = int(times[0]), int(times[-1])
    # What is held out begins when the last outcome before it is known.
    split_ms = last_ms - round(holdout * (last_ms - first_ms))
    measuring = Measuring(step_ms, split_ms + LONGEST_HORIZON_MS, seed)
    if measuring.held_out_from_ms >= last_ms:
        raise InvalidInputError(
            f"{holdout:g} of the time is no more than a day, too little to measure on; give a "
            "longer time, or hold more of it out"
        )
    symbols = sorted(dataset.points)
    calibration = Calibration(
        schema_version=SCHEMA_VERSION,
        package_version=__version__,
        created_at=created_at,
        scope=_scope(dataset, spaces, search, symbols),
        fitted_from_ms=first_ms,
        held_out_from_ms=measuring.held_out_from_ms,
        known_by_ms=last_ms + LONGEST_HORIZON_MS,
        window_days=WINDOW_DAYS,
        step_minutes=step_ms // MINUTE_MS,
        interval_level=INTERVAL_LEVEL,
        data_digest=dataset.digest(),
        seed=seed,
        horizons={
            name: _horizon(name, scores[name], symbols, rules[name], measuring) for name in HORIZONS
        },
    )
    return Fitted(calibration, scores)


def conformal_quantile(scores: Floats, effective: float, level: float = BAND_LEVEL) -> float:
    """The score below which a new one lies with a chance of at least `level`.

    The order statistic at level (n + 1) / n of scores (m,) that tell as much as n independent
    ones. With n = m exchangeable scores the chance is between `level` and `level` + 1 / (n + 1).
    """
    at = min(level * (effective + 1) / effective, 1.0)
    return float(np.quantile(scores, at, method="inverted_cdf"))


def effective_scores(time_ms: Times, horizon_ms: Millis, step_ms: Millis) -> float:
    """How many of the times' outcomes do not overlap; symbols at one time count as one."""
    return len(np.unique(time_ms)) * min(1.0, step_ms / horizon_ms)


def followed_margins(
    time_ms: Times, scores: Floats, days_ms: Times, horizon_ms: Millis, step_ms: Millis
) -> Floats:
    """At each of the given times the margin of the `WINDOW_DAYS` before that was known then.

    Scores (n,) of queries at `time_ms` (n,), increasing; shape (days,), NaN where too few were.
    """
    known = np.isfinite(scores)
    time_ms, scores = time_ms[known], scores[known]
    last_ms = days_ms - LONGEST_HORIZON_MS
    first = np.searchsorted(time_ms, last_ms - WINDOW_DAYS * DAY_MS, side="right")
    last = np.searchsorted(time_ms, last_ms, side="right")
    margins = np.full(len(days_ms), np.nan)
    for day, (start, end) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        effective = effective_scores(time_ms[start:end], horizon_ms, step_ms)
        if effective >= LEAST_EFFECTIVE_SCORES:
            margins[day] = conformal_quantile(scores[start:end], effective)
    return margins


def band_scores(low: Floats, high: Floats, observed: Floats, volatility_pct: Floats) -> Floats:
    """How far outside [low, high] each observation is, below 0 inside, in units of volatility."""
    score: Floats = np.maximum(low - observed, observed - high) / np.maximum(
        volatility_pct, VOLATILITY_FLOOR
    )
    return score


def _refuse_unserved(search: Search, holdout: float) -> None:
    if search.vector == "random" or search.embargo_hours:
        raise InvalidInputError("a calibration is of the search that a server does")
    if not 0.05 <= holdout <= 0.8:
        raise InvalidInputError(f"{holdout:g} of the time held out: take 0.05 to 0.8")


def _scope(dataset: Dataset, spaces: Spaces, search: Search, symbols: list[str]) -> Scope:
    compares_text = search.vector != STATE and spaces.text
    return Scope(
        exchange=dataset.exchange,
        symbols=tuple(symbols),
        feature_version=spaces.state.feature_version,
        state_space_id=spaces.state.space_id,
        text_space_id=spaces.text.space_id if compares_text and spaces.text else None,
        **search.episode_fields(),
    )


def _scored(
    dataset: Dataset,
    search: Search,
    rules: Mapping[str, ForecastRule],
    step_ms: Millis,
    seed: int,
    progress: Progress,
) -> dict[str, Scores]:
    """By horizon, the queries of all symbols in the order of time."""
    parts: dict[str, list[Scores]] = {name: [] for name in HORIZONS}
    for number, symbol in enumerate(sorted(dataset.points)):
        points, queries = dataset.points[symbol], dataset.queries(symbol, step_ms)
        told = Counted(partial(progress, symbol), len(queries))
        neighbours = find_neighbours(
            points, queries, search, intraday=dataset.intraday, seed=seed, progress=told
        )
        for name, of in parts.items():
            of.append(_of_symbol(points, queries, neighbours, name, rules[name], number))
    return {name: _in_time(of) for name, of in parts.items()}


def served_scores(
    points: PointTable, queries: PointTable, neighbours: Neighbours, name: str
) -> Floats:
    """`band_scores` of the bands that the server gives, shape (n,); NaN without all episodes."""
    served = horizon_of(points, queries, neighbours, name, _SERVED)
    low, high = quantiles(served.ensemble(neighbours.rows), _BAND).T
    score = band_scores(low, high, served.observed, queries.column("realized_volatility_24h"))
    return np.where(neighbours.complete, score, np.nan)


def _of_symbol(
    points: PointTable,
    queries: PointTable,
    neighbours: Neighbours,
    name: str,
    rule: ForecastRule,
    number: int,
) -> Scores:
    ruled = horizon_of(points, queries, neighbours, name, rule)
    lost = losses_beside_base(ruled, neighbours, rule)
    return Scores(
        queries.timestamp_ms,
        np.full(len(queries), number, np.intp),
        served_scores(points, queries, neighbours, name),
        *(np.where(neighbours.complete, of, np.nan) for of in lost),
    )


def _in_time(parts: list[Scores]) -> Scores:
    order = np.argsort(np.concatenate([of.time_ms for of in parts]), kind="stable")
    return Scores(
        np.concatenate([of.time_ms for of in parts])[order],
        np.concatenate([of.symbol for of in parts])[order],
        np.concatenate([of.score for of in parts])[order],
        np.concatenate([of.forecast_loss for of in parts])[order],
        np.concatenate([of.base_loss for of in parts])[order],
    )


def _horizon(
    name: str, scores: Scores, symbols: list[str], rule: ForecastRule, measuring: Measuring
) -> HorizonCalibration:
    horizon_ms, step_ms = HORIZONS[name], measuring.step_ms
    known_ms = scores.time_ms[np.isfinite(scores.score)]
    first_ms, end_ms = int(known_ms[0]), int(known_ms[-1]) + LONGEST_HORIZON_MS
    days_ms = np.append(np.arange(first_ms - first_ms % DAY_MS, end_ms, DAY_MS), end_ms)
    margins = followed_margins(scores.time_ms, scores.score, days_ms, horizon_ms, step_ms)
    day = np.searchsorted(days_ms, scores.time_ms, side="right") - 1
    first_day = int(np.searchsorted(days_ms, measuring.held_out_from_ms, side="right")) - 1
    held = np.maximum(day, first_day)
    held_out = scores.time_ms >= measuring.held_out_from_ms
    if not np.isfinite(margins[[first_day, -1]]).all():
        raise _too_short(name)
    before, after = inside(scores.score, 0.0), inside(scores.score, margins[day])
    both = np.isfinite(before + after)
    block = block_of(name, step_ms)
    return HorizonCalibration(
        margin=float(margins[-1]),
        effective_scores=_effective_in_window(known_ms, horizon_ms, step_ms),
        coverage_before=_mean(scores, before, held_out & both, block, measuring.seed),
        coverage_after=_mean(scores, after, held_out & both, block, measuring.seed),
        after_kept_days={
            kept: float(
                np.nanmean(
                    inside(scores.score, margins[held - (held - first_day) % kept])[held_out]
                )
            )
            for kept in KEPT_DAYS
            if kept <= len(days_ms) - 1 - first_day
        },
        by_month=_grouped(_months(scores.time_ms), before, after, both),
        by_symbol=_grouped(np.array(symbols)[scores.symbol], before, after, both & held_out),
        rescale=rule.rescale,
        neighbour_share=rule.neighbour_share,
        skill=_skill(scores, held_out, block, measuring.seed),
    )


def _too_short(name: str) -> InvalidInputError:
    return InvalidInputError(
        f"before what is held out, or before the end, {WINDOW_DAYS} days have fewer than "
        f"{LEAST_EFFECTIVE_SCORES} outcomes over {name} that do not overlap; give a longer time, "
        "without gaps, or hold less of it out"
    )


def _effective_in_window(known_ms: Times, horizon_ms: Millis, step_ms: Millis) -> float:
    recent = known_ms[known_ms > known_ms[-1] - WINDOW_DAYS * DAY_MS]
    return effective_scores(recent, horizon_ms, step_ms)


def inside(score: Floats, margin: Floats | float) -> Floats:
    """1 where what followed lay inside the band, 0 where not, NaN where either is not known."""
    known = np.isfinite(score) & np.isfinite(margin)
    return np.where(known, score <= margin, np.nan)


def _by_time(scores: Scores, values: Floats, chosen: Mask) -> Floats:
    """Means over the symbols at each time, for they move together; NaN is left out."""
    chosen = chosen & np.isfinite(values)
    _, at = np.unique(scores.time_ms[chosen], return_inverse=True)
    means: Floats = np.bincount(at, values[chosen]) / np.bincount(at)
    return means


def _mean(scores: Scores, values: Floats, chosen: Mask, block: int, seed: int) -> Interval:
    by_time = _by_time(scores, values, chosen)
    return mean_interval(by_time, block, seed=seed, level=INTERVAL_LEVEL)


def _skill(scores: Scores, held_out: Mask, block: int, seed: int) -> Interval:
    both = held_out & np.isfinite(scores.forecast_loss) & np.isfinite(scores.base_loss)
    forecast, base = (_by_time(scores, of, both) for of in (scores.forecast_loss, scores.base_loss))
    return skill_interval(forecast, base, block, seed=seed, level=INTERVAL_LEVEL)


def _months(time_ms: Times) -> npt.NDArray[np.str_]:
    months: npt.NDArray[np.str_] = (
        time_ms.astype("datetime64[ms]").astype("datetime64[M]").astype(str)
    )
    return months


def _grouped(
    group: npt.NDArray[np.str_], before: Floats, after: Floats, chosen: Mask
) -> dict[str, Coverage]:
    return {
        str(name): Coverage(
            before=float(before[of].mean()),
            after=float(after[of].mean()),
            queries=int(np.count_nonzero(of)),
        )
        for name in np.unique(group[chosen])
        if (of := chosen & (group == name)).any()
    }
