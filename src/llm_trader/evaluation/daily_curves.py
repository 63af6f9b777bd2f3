"""Values that may drift, by day: similarity, effective episodes, coverage, equity; a histogram."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from llm_trader.arrays import Floats, Times
from llm_trader.evaluation.backtest.simulator import Simulation
from llm_trader.evaluation.conformal.bands import BandCoverage
from llm_trader.evaluation.forecast.skills import WalkForward
from llm_trader.evaluation.results import Curve, CurveKind, Histogram
from llm_trader.timeframe import DAY_MS

_BINS: Final = 40
# One day holds few outcomes that do not overlap.
_COVERAGE_DAYS: Final = 7


def drift_curves(
    walk: WalkForward, coverages: Mapping[str, BandCoverage], horizon: str
) -> list[Curve]:
    """Daily curves of one symbol; the corrected band's coverage is the mean of a week."""
    times_ms, symbol = walk.queries.timestamp_ms, walk.points.symbol
    similarity, episodes = (
        walk.mean_similarity,
        walk.effective_episodes(horizon, walk.neighbours),
    )
    return [
        _daily(symbol, "mean of the neighbours", "similarity", times_ms, similarity),
        _daily(symbol, f"over {horizon}", "effective episodes", times_ms, episodes),
        *(
            _daily(symbol, f"over {name}", "coverage", times_ms, coverage.after, _COVERAGE_DAYS)
            for name, coverage in coverages.items()
        ),
    ]


def equity_curve(symbol: str, arm: str, simulation: Simulation) -> Curve:
    """The last value of each day."""
    last = np.flatnonzero(np.diff(simulation.time_ms // DAY_MS, append=-1))
    return Curve(
        symbol=symbol,
        name=arm,
        kind="equity",
        time_ms=simulation.time_ms[last].tolist(),
        value=simulation.equity[last].tolist(),
    )


def similarity_histogram(walk: WalkForward) -> Histogram:
    similarity = walk.mean_similarity
    counts, edges = np.histogram(similarity[np.isfinite(similarity)], bins=_BINS)
    return Histogram(symbol=walk.points.symbol, edges=edges.tolist(), counts=counts.tolist())


def _daily(
    symbol: str, name: str, kind: CurveKind, time_ms: Times, values: Floats, days: int = 1
) -> Curve:
    """Means of the `days` days that end with each day; None where all values are unknown."""
    known = np.isfinite(values)
    first_ms = int(time_ms[0] - time_ms[0] % DAY_MS)
    day = (time_ms - first_ms) // DAY_MS
    total, count = (
        np.convolve(np.bincount(day, weights), np.ones(days))[: day[-1] + 1]
        for weights in (np.where(known, values, 0.0), known.astype(np.float64))
    )
    means = [float(t / c) if c >= 1 else None for t, c in zip(total, count, strict=True)]
    days_ms = (first_ms + DAY_MS * np.arange(len(means))).tolist()
    return Curve(symbol=symbol, name=name, kind=kind, time_ms=days_ms, value=means)
