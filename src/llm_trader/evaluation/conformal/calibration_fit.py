"""Fits a calibration on the past: conformal margins, and where forecasts had skill.

1. The score of each query is by how far its outcome left the band of the forecast that the server
   gives, in units of its expected volatility.
2. Margins are finite-sample 80 % quantiles of the scores of the last weeks (conformalised quantile
   regression: Romano, Patterson and Candès 2019), by the conditions of the queries.
3. The last part of the time is held out: there each outcome is compared with margins made before
   it was known, and forecasts are scored against the volatility model.

Markets drift, so the scores are not exchangeable over months. `after_kept_days` says what margins
are worth when they are not made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from llm_trader import __version__
from llm_trader.arrays import Floats, Mask, Rows, Times
from llm_trader.errors import InvalidInputError
from llm_trader.evaluation.conformal.bands import (
    BY_HOURS,
    BY_RATIO,
    MIN_EFFECTIVE_SCORES,
    WINDOW_DAYS,
    Conditions,
    LocalMargins,
    band_scores,
    covered,
    effective_scores,
    margins_of,
    named_cells,
    trailing_margins,
)
from llm_trader.evaluation.dataset import Dataset
from llm_trader.evaluation.forecast.ensembles import (
    HorizonOutcomes,
    forecast_and_model_losses,
    make_forecasts,
)
from llm_trader.evaluation.forecast.neighbour_search import find_neighbours
from llm_trader.evaluation.forecast.skills import rows_per_block
from llm_trader.evaluation.plan import DEFAULT_RULES, ForecastRule, Search
from llm_trader.evaluation.significance import SIGNIFICANCE_LEVEL, mean_interval, skill_interval
from llm_trader.index.ingestion import Spaces
from llm_trader.index.points import STATE
from llm_trader.progress import Progress, StepCounter, no_progress
from llm_trader.retrieval.calibration import (
    SCHEMA_VERSION,
    Calibration,
    Coverage,
    HorizonCalibration,
    Margins,
    Scope,
)
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS
from llm_trader.timeframe import DAY_MS, HORIZONS, MINUTE_MS, Millis, iso8601

KEPT_DAYS: Final = (7, 30, 60)
# Less than 5 % measures a few days; more than 80 % leaves too few weeks to fit on.
MIN_HOLDOUT, MAX_HOLDOUT = 0.05, 0.8

# 1000 resamples leave the bounds of such an interval to 6 of them.
_REPS: Final = 1000
# Bonferroni's rule: one of the horizons shows skill by chance in 1 of 20 calibrations, at most.
INTERVAL_LEVEL: Final = 1 - SIGNIFICANCE_LEVEL / len(HORIZONS)


class Scores(NamedTuple):
    """Scores and losses of n queries at one horizon, in the order of time; NaN is unknown.

    Queries of several symbols at one time are adjacent. `score` is in units of expected volatility;
    the losses are those of the forecast and of the volatility model.
    """

    time_ms: Times
    conditions: Conditions
    score: Floats
    forecast_loss: Floats
    model_loss: Floats


class Fit(NamedTuple):
    """A calibration, and by horizon the scores that it was made from."""

    calibration: Calibration
    scores: dict[str, Scores]


class _Measurement(NamedTuple):
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
) -> Fit:
    """Fit on a data set, whose last `holdout` of time is held out for measuring.

    `rules` say which forecast is measured; by default the one that is served. Raises
    `InvalidInputError` where there are too few queries to fit on or to measure.
    """
    rules = rules or DEFAULT_RULES
    if search.vector == "random" or search.embargo_hours:
        raise InvalidInputError(
            "a server searches neither at random nor with an embargo; calibrate its own search"
        )
    if not MIN_HOLDOUT <= holdout <= MAX_HOLDOUT:
        raise InvalidInputError(
            f"{holdout:g} of the time is held out: take {MIN_HOLDOUT:g} to {MAX_HOLDOUT:g}"
        )
    scores = _scores_by_horizon(dataset, search, rules, step_ms, seed, progress)
    first_ms, last_ms = _known_span(dataset, search, next(iter(scores.values())))
    measurement = _Measurement(step_ms, _held_out_from_ms(first_ms, last_ms, holdout), seed)
    symbols = sorted(dataset.points)
    calibration = Calibration(
        schema_version=SCHEMA_VERSION,
        package_version=__version__,
        created_at=created_at,
        scope=_scope(dataset, spaces, search, symbols),
        fitted_from_ms=first_ms,
        held_out_from_ms=measurement.held_out_from_ms,
        known_by_ms=last_ms + LONGEST_HORIZON_MS,
        window_days=WINDOW_DAYS,
        step_minutes=step_ms // MINUTE_MS,
        interval_level=INTERVAL_LEVEL,
        data_digest=dataset.digest(),
        seed=seed,
        horizons={
            name: _horizon_calibration(name, scores[name], symbols, rules[name], measurement)
            for name in HORIZONS
        },
        features_missing=spaces.state.features_missing(dataset.lacked_by_all()),
    )
    return Fit(calibration, scores)


def _known_span(dataset: Dataset, search: Search, scores: Scores) -> tuple[Millis, Millis]:
    """The times of the first and the last query with a score."""
    known_ms = scores.time_ms[np.isfinite(scores.score)]
    if not len(known_ms):
        raise InvalidInputError(
            f"no query from {iso8601(dataset.start_ms)} to {iso8601(dataset.end_ms)} has "
            f"{search.neighbours} neighbours within {search.lookback_days} days; import older "
            "data, or look back less far"
        )
    return int(known_ms[0]), int(known_ms[-1])


def _held_out_from_ms(first_ms: Millis, last_ms: Millis, holdout: float) -> Millis:
    # The held-out part begins when the last outcome before it is known.
    split_ms = last_ms - round(holdout * (last_ms - first_ms))
    if split_ms + LONGEST_HORIZON_MS >= last_ms:
        raise InvalidInputError(
            f"{holdout:g} of the time is no more than a day, too little to measure on; give a "
            "longer time, or hold out more of it"
        )
    return split_ms + LONGEST_HORIZON_MS


def _scope(dataset: Dataset, spaces: Spaces, search: Search, symbols: list[str]) -> Scope:
    text_space = spaces.text if search.vector != STATE else None
    return Scope(
        exchange=dataset.exchange,
        symbols=tuple(symbols),
        feature_version=spaces.state.feature_version,
        state_space_id=spaces.state.space_id,
        text_space_id=text_space.space_id if text_space else None,
        volatility_model=dataset.rules.volatility.id,
        neighbours=search.neighbours,
        gap_hours=search.gap_hours,
        **search.neighbour_fields(),
    )


def _scores_by_horizon(
    dataset: Dataset,
    search: Search,
    rules: Mapping[str, ForecastRule],
    step_ms: Millis,
    seed: int,
    progress: Progress,
) -> dict[str, Scores]:
    parts: dict[str, list[Scores]] = {name: [] for name in HORIZONS}
    for number, symbol in enumerate(sorted(dataset.points)):
        points, queries = dataset.points[symbol], dataset.queries(symbol, step_ms)
        counter = StepCounter(progress, symbol, len(queries))
        neighbours = find_neighbours(points, queries, search, seed=seed, progress=counter)
        for name, scores in parts.items():
            outcomes = HorizonOutcomes(points, queries, neighbours, name, rules[name].scale)
            forecasts = make_forecasts(outcomes, neighbours, rules[name])
            scores.append(
                Scores(
                    queries.timestamp_ms,
                    Conditions.of(queries, name, number),
                    band_scores(forecasts),
                    *forecast_and_model_losses(outcomes, neighbours, rules[name]),
                )
            )
    return {name: _sorted_by_time(scores) for name, scores in parts.items()}


def _sorted_by_time(parts: list[Scores]) -> Scores:
    time_ms, conditions, *columns = zip(*parts, strict=True)
    order = np.argsort(np.concatenate(time_ms), kind="stable")
    joined = Conditions._make(np.concatenate(column) for column in zip(*conditions, strict=True))
    ordered = (np.concatenate(column)[order] for column in columns)
    return Scores(np.concatenate(time_ms)[order], joined.take(order), *ordered)


def _horizon_calibration(
    name: str, scores: Scores, symbols: list[str], rule: ForecastRule, measurement: _Measurement
) -> HorizonCalibration:
    horizon_ms, step_ms = HORIZONS[name], measurement.step_ms
    known_ms = scores.time_ms[np.isfinite(scores.score)]
    first_ms, end_ms = int(known_ms[0]), int(known_ms[-1]) + LONGEST_HORIZON_MS
    days_ms = np.append(np.arange(first_ms - first_ms % DAY_MS, end_ms, DAY_MS), end_ms)
    margins = trailing_margins(
        scores.time_ms, scores.score, scores.conditions, days_ms, horizon_ms, step_ms
    )
    latest = margins[-1]
    day = np.searchsorted(days_ms, scores.time_ms, side="right") - 1
    first_day = int(np.searchsorted(days_ms, measurement.held_out_from_ms, side="right")) - 1
    if latest is None or margins[first_day] is None:
        raise InvalidInputError(
            f"the {WINDOW_DAYS} days before the held-out part, or before the end, have fewer than "
            f"{MIN_EFFECTIVE_SCORES} outcomes over {name} that do not overlap; give a longer time "
            "without gaps, or hold out less of it"
        )
    held_out = scores.time_ms >= measurement.held_out_from_ms
    hits = covered(scores.score, 0.0)
    corrected_hits = covered(scores.score, margins_of(margins, day, scores.conditions))
    # Both shares count the same queries: those that had margins.
    corrected = np.isfinite(hits + corrected_hits)
    known_losses = held_out & np.isfinite(scores.forecast_loss + scores.model_loss)
    recent_ms = known_ms[known_ms > known_ms[-1] - WINDOW_DAYS * DAY_MS]
    months = scores.time_ms.astype("datetime64[ms]").astype("datetime64[M]").astype(str)
    resampling = rows_per_block(name, step_ms), _REPS, measurement.seed, INTERVAL_LEVEL
    hits_by_time, corrected_hits_by_time = (
        _mean_by_time(scores, column, held_out & corrected) for column in (hits, corrected_hits)
    )
    cells: dict[str, dict[str, Coverage]] = {}
    for by, value, mask in named_cells(scores.conditions, held_out & corrected):
        counted = mask & held_out & corrected
        if counted.any():
            cells.setdefault(by, {})[value] = _coverage(hits, corrected_hits, counted)
    return HorizonCalibration(
        margins=_margins(latest, symbols),
        effective_scores=effective_scores(recent_ms, horizon_ms, step_ms),
        coverage_before=mean_interval(hits_by_time, *resampling),
        coverage_after=mean_interval(corrected_hits_by_time, *resampling),
        after_kept_days=_kept_coverage(scores, margins, day, first_day, held_out),
        by_month=_grouped(months, hits, corrected_hits, corrected),
        by_symbol=_grouped(
            np.array(symbols)[scores.conditions.symbol], hits, corrected_hits, corrected & held_out
        ),
        by_volatility_ratio=cells[BY_RATIO],
        by_hours=cells[BY_HOURS],
        weight_of_neighbours=rule.weight_of_neighbours,
        skill=skill_interval(
            _mean_by_time(scores, scores.forecast_loss, known_losses),
            _mean_by_time(scores, scores.model_loss, known_losses),
            *resampling,
        ),
    )


def _margins(latest: LocalMargins, symbols: list[str]) -> Margins:
    by_ratio, by_hours, by_symbol = (offset.tolist() for offset in latest.offsets)
    return Margins(
        base=latest.base,
        ratio_edges=tuple(latest.ratio_edges.tolist()),
        by_ratio=tuple(by_ratio),
        by_hours=tuple(by_hours),
        by_symbol=dict(zip(symbols, by_symbol, strict=True)),
    )


def _kept_coverage(
    scores: Scores,
    margins: Sequence[LocalMargins | None],
    day: Rows,
    first_day: int,
    held_out: Mask,
) -> dict[int, float]:
    """Coverage of the held-out part where margins are kept for so many days."""
    day = np.maximum(day, first_day)
    last_day = len(margins) - 1
    coverages = {}
    for kept in KEPT_DAYS:
        if kept <= last_day - first_day:
            kept_margins = margins_of(margins, day - (day - first_day) % kept, scores.conditions)
            coverages[kept] = float(np.nanmean(covered(scores.score, kept_margins)[held_out]))
    return coverages


def _mean_by_time(scores: Scores, values: Floats, mask: Mask) -> Floats:
    """Means over the symbols at each time, as they move together, of known values."""
    _, group = np.unique(scores.time_ms[mask], return_inverse=True)
    return np.asarray(np.bincount(group, values[mask]) / np.bincount(group))


def _grouped(
    groups: npt.NDArray[np.str_], hits: Floats, corrected_hits: Floats, mask: Mask
) -> dict[str, Coverage]:
    return {
        str(name): _coverage(hits, corrected_hits, mask & (groups == name))
        for name in np.unique(groups[mask])
    }


def _coverage(hits: Floats, corrected_hits: Floats, mask: Mask) -> Coverage:
    before, after = (float(column[mask].mean()) for column in (hits, corrected_hits))
    return Coverage(before=before, after=after, queries=int(np.count_nonzero(mask)))
