"""80 % bands: by how much they miss, the margins that correct them, and what the corrected cover.

A band is the one the server gives: 10 and 90 % of the forecast. Margins are made again at each UTC
midnight from the outcomes known by then, so that none is made from what it corrects. They differ by
the conditions of a query as far as past outcomes show it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from llm_trader.arrays import Floats, Mask, Rows, Times
from llm_trader.embedding.features import VOLATILITY_FLOOR
from llm_trader.evaluation import significance
from llm_trader.evaluation.forecast.ensembles import Forecasts
from llm_trader.evaluation.forecast.skills import ScoredForecasts
from llm_trader.evaluation.plan import StudyPlan
from llm_trader.evaluation.results import Band, BandCell
from llm_trader.index.points import PointTable
from llm_trader.retrieval.calibration import BAND_LEVEL, HOUR_CELLS, HOURS_PER_CELL, RATIO_CELLS
from llm_trader.snapshot.model import EXPECTED_VOLATILITY
from llm_trader.snapshot.outcome import LONGEST_HORIZON_MS
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS, Millis

# Weeks follow a drifting market: margins of half a year cover too little, or too much, in the next
# quarter, and those of a month rest on too few outcomes over 24h.
WINDOW_DAYS: Final = 60
# The 80 % quantile of fewer independent scores is one of the two highest.
MIN_EFFECTIVE_SCORES: Final = 10
# So many independent scores are worth as much as the assumption that nothing needs correcting.
_SCORES_OF_THE_PRIOR: Final = 60

# What results and pages call the divisions.
BY_RATIO, BY_HOURS = "expected / last 24h", "hour (UTC)"

_RATIO_LEVELS: Final = np.arange(1, RATIO_CELLS) / RATIO_CELLS


class Conditions(NamedTuple):
    """What margins differ by, of n queries (n,): the ratio of the expected volatility to that of
    the last 24h, the number of the part of the UTC day, and the number of the symbol.
    """

    volatility_ratio: Floats
    hours: Rows
    symbol: Rows

    @classmethod
    def of(cls, queries: PointTable, horizon: str, symbol: int = 0) -> Conditions:
        realized_pct = np.maximum(queries.column("realized_volatility_24h"), VOLATILITY_FLOOR)
        ratio = queries.column(EXPECTED_VOLATILITY[horizon]) / realized_pct
        hours = queries.timestamp_ms % DAY_MS // (HOURS_PER_CELL * HOUR_MS)
        return cls(ratio, hours, np.full(len(queries), symbol, np.intp))

    def take(self, rows: Rows | Mask | slice) -> Conditions:
        return Conditions(self.volatility_ratio[rows], self.hours[rows], self.symbol[rows])

    def cells(self, ratio_edges: Floats) -> tuple[Rows, Rows, Rows]:
        """The number of each query's cell in each division, (n,)."""
        return np.searchsorted(ratio_edges, self.volatility_ratio, "right"), self.hours, self.symbol


class LocalMargins(NamedTuple):
    """Margins in units of expected volatility: a common one, and what each cell adds to it.

    `offsets` are by fifths of the volatility ratio, which meet at `ratio_edges`, by the part of the
    day, and by symbol.
    """

    base: float
    ratio_edges: Floats
    offsets: tuple[Floats, ...]

    def of(self, conditions: Conditions) -> Floats:
        cells = conditions.cells(self.ratio_edges)
        offsets = [part[cell] for part, cell in zip(self.offsets, cells, strict=True)]
        return np.asarray(self.base + sum(offsets))


class BandCoverage(NamedTuple):
    """For n queries, 1 where the outcome was inside the band and 0 where not, (n,).

    NaN where the outcome is unknown, or where there were no margins yet.
    """

    before: Floats
    after: Floats


def cover(scored: ScoredForecasts) -> BandCoverage:
    queries, horizon = scored.walk.queries, scored.horizon
    times_ms = queries.timestamp_ms
    scores, conditions = band_scores(scored.forecasts), Conditions.of(queries, horizon)
    midnights_ms = np.arange(times_ms[0] - times_ms[0] % DAY_MS, times_ms[-1] + 1, DAY_MS)
    margins = trailing_margins(
        times_ms, scores, conditions, midnights_ms, HORIZONS[horizon], scored.walk.step_ms
    )
    day = (times_ms - midnights_ms[0]) // DAY_MS
    after = covered(scores, margins_of(margins, day, conditions))
    return BandCoverage(np.where(np.isfinite(after), covered(scores, 0.0), np.nan), after)


def measure_band(scored: ScoredForecasts, coverage: BandCoverage, plan: StudyPlan) -> Band:
    resampling = scored.block, plan.reps, plan.seed
    return Band(
        symbol=scored.symbol,
        horizon=scored.horizon,
        before=significance.mean_interval(coverage.before, *resampling),
        after=significance.mean_interval(coverage.after, *resampling),
        queries=int(np.isfinite(coverage.after).sum()),
    )


def measure_band_cells(scored: ScoredForecasts, coverage: BandCoverage) -> list[BandCell]:
    """Coverages under each condition."""
    conditions = Conditions.of(scored.walk.queries, scored.horizon)
    known = np.isfinite(coverage.after)
    cells = []
    for by, value, mask in named_cells(conditions, known):
        rows = known & mask
        if rows.any():
            shares = [float(column[rows].mean()) for column in coverage]
            cells.append(
                BandCell(
                    symbol=scored.symbol,
                    horizon=scored.horizon,
                    by=by,
                    value=value,
                    before=shares[0],
                    after=shares[1],
                    queries=int(rows.sum()),
                )
            )
    return cells


def named_cells(conditions: Conditions, known: Mask) -> Iterator[tuple[str, str, Mask]]:
    """What divides the queries, the name of a cell, and a mask (n,) of the queries in it.

    Fifths of the volatility ratio are those of the queries in `known`.
    """
    if not known.any():
        return
    edges = np.quantile(conditions.volatility_ratio[known], _RATIO_LEVELS)
    ratio_cells, hours, _ = conditions.cells(edges)
    for cell in range(RATIO_CELLS):
        yield BY_RATIO, f"fifth {cell + 1} of {RATIO_CELLS}", ratio_cells == cell
    for cell in range(HOUR_CELLS):
        start = cell * HOURS_PER_CELL
        yield BY_HOURS, f"{start:02d}-{start + HOURS_PER_CELL:02d}", hours == cell


def band_scores(forecasts: Forecasts) -> Floats:
    """How far outside the band each outcome is, below 0 inside, in units of the scale, (n,)."""
    outside = np.maximum(forecasts.p10 - forecasts.observed, forecasts.observed - forecasts.p90)
    return np.asarray(outside / forecasts.scale_pct)


def covered(scores: Floats, margin: Floats | float) -> Floats:
    """1 where the outcome lay inside the widened band, 0 where not, NaN where either is unknown."""
    comparable = np.isfinite(scores) & np.isfinite(margin)
    return np.where(comparable, scores <= margin, np.nan)


def margins_of(margins: Sequence[LocalMargins | None], day: Rows, conditions: Conditions) -> Floats:
    """The margin of each query, (n,), by the increasing numbers of their days; NaN without."""
    found_margins = np.full(len(day), np.nan)
    starts = np.flatnonzero(np.diff(day, prepend=-1))
    for start, end in zip(starts, np.append(starts[1:], len(day)), strict=True):
        if local := margins[day[start]]:
            found_margins[start:end] = local.of(conditions.take(slice(start, end)))
    return found_margins


def trailing_margins(
    time_ms: Times,
    scores: Floats,
    conditions: Conditions,
    as_of_ms: Times,
    horizon_ms: Millis,
    step_ms: Millis,
) -> list[LocalMargins | None]:
    """The margins at each `as_of_ms` of the `WINDOW_DAYS` before, from the scores known by then.

    Scores (n,) of queries at `time_ms` (n,), increasing; None where too few were.
    """
    # A symbol may be asked about before it has a score, as one that was listed later is.
    symbols = int(conditions.symbol.max(initial=0)) + 1
    scored = np.isfinite(scores)
    time_ms, scores, conditions = time_ms[scored], scores[scored], conditions.take(scored)
    last_ms = as_of_ms - LONGEST_HORIZON_MS
    first = np.searchsorted(time_ms, last_ms - WINDOW_DAYS * DAY_MS, side="right")
    last = np.searchsorted(time_ms, last_ms, side="right")
    margins: list[LocalMargins | None] = []
    for start, end in zip(first.tolist(), last.tolist(), strict=True):
        window = slice(start, end)
        effective = effective_scores(time_ms[window], horizon_ms, step_ms)
        fits = effective >= MIN_EFFECTIVE_SCORES
        fitted = scores[window], conditions.take(window), effective, symbols
        margins.append(fit_margins(*fitted) if fits else None)
    return margins


def effective_scores(time_ms: Times, horizon_ms: Millis, step_ms: Millis) -> float:
    """How many outcomes do not overlap; several symbols at one time count as one."""
    return len(np.unique(time_ms)) * min(1.0, step_ms / horizon_ms)


def fit_margins(
    scores: Floats, conditions: Conditions, effective: float, symbols: int
) -> LocalMargins:
    """Margins of scores (m,) that are worth `effective` independent ones, for so many symbols.

    One division after the other, a cell gets the difference of its quantile of what is left from
    that of all, shrunk towards 0 by how few its scores are; then the rest gives the common margin.
    """
    edges = np.quantile(conditions.volatility_ratio, _RATIO_LEVELS)
    # Symbols move together, so each has as many independent scores as all of them.
    divisions = (
        (RATIO_CELLS, effective / RATIO_CELLS),
        (HOUR_CELLS, effective / HOUR_CELLS),
        (symbols, effective),
    )
    rest, offsets = scores, []
    for cells, (number, scores_per_cell) in zip(conditions.cells(edges), divisions, strict=True):
        common = _quantile(rest, BAND_LEVEL)
        differences = [
            _quantile(of_cell, BAND_LEVEL) - common if len(of_cell) else 0.0
            for of_cell in (rest[cells == cell] for cell in range(number))
        ]
        offset = np.array(differences) * _trust(scores_per_cell)
        offsets.append(offset)
        rest = rest - offset[cells]
    # The level (n + 1) / n makes up for a quantile of n scores being fitted on them.
    level = min(BAND_LEVEL * (effective + 1) / effective, 1.0)
    return LocalMargins(_quantile(rest, level) * _trust(effective), edges, tuple(offsets))


def _quantile(scores: Floats, level: float) -> float:
    return float(np.quantile(scores, level, method="inverted_cdf"))


def _trust(effective: float) -> float:
    return effective / (effective + _SCORES_OF_THE_PRIOR)
