"""What drifts: similarity, effective episodes, coverage and equity by day, and a histogram."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np

from llm_trader.arrays import Floats, Times
from llm_trader.evaluation.backtest.simulator import Simulation
from llm_trader.evaluation.conformal.coverage import Inside
from llm_trader.evaluation.forecast.skills import Walk
from llm_trader.evaluation.results import Curve, Histogram
from llm_trader.timeframe import DAY_MS

Kind = Literal["equity", "similarity", "effective episodes", "coverage"]

_BINS: Final = 40
_COVERAGE_DAYS: Final = 7


def drift(walk: Walk, covered: dict[str, Inside], horizon: str) -> list[Curve]:
    """Of one symbol, by day; coverage of the corrected band over each horizon as the mean of a
    week, as one day holds few outcomes that do not overlap.
    """
    times, symbol = walk.queries.timestamp_ms, walk.points.symbol
    curves = [
        _daily(symbol, "mean of the neighbours", "similarity", times, walk.mean_similarity),
        _daily(
            symbol,
            f"over {horizon}",
            "effective episodes",
            times,
            walk.effective_episodes(horizon, walk.neighbours),
        ),
    ]
    for name, inside in covered.items():
        curves.append(
            _daily(symbol, f"over {name}", "coverage", times, inside.after, _COVERAGE_DAYS)
        )
    return curves


def equity(symbol: str, arm: str, simulation: Simulation) -> Curve:
    """The last value of each day."""
    last = np.flatnonzero(np.diff(simulation.time_ms // DAY_MS, append=-1))
    return Curve(
        symbol=symbol,
        name=arm,
        kind="equity",
        time_ms=simulation.time_ms[last].tolist(),
        value=simulation.equity[last].tolist(),
    )


def histogram(walk: Walk) -> Histogram:
    known = walk.mean_similarity
    counts, edges = np.histogram(known[np.isfinite(known)], bins=_BINS)
    return Histogram(symbol=walk.points.symbol, edges=edges.tolist(), counts=counts.tolist())


def _daily(
    symbol: str, name: str, kind: Kind, times: Times, values: Floats, days: int = 1
) -> Curve:
    """Means of `days` days that end with each day; None where nothing in them is known."""
    known = np.isfinite(values)
    day = (times - times[0] + times[0] % DAY_MS) // DAY_MS
    sums = (np.bincount(day, of) for of in (np.where(known, values, 0.0), known.astype(np.float64)))
    total, count = (np.convolve(of, np.ones(days))[: len(of)] for of in sums)
    means = [float(t / c) if c > 0.5 else None for t, c in zip(total, count, strict=True)]
    first = int(times[0] - times[0] % DAY_MS)
    stamps = (first + DAY_MS * np.arange(len(means))).tolist()
    return Curve(symbol=symbol, name=name, kind=kind, time_ms=stamps, value=means)
