"""Forecasts that a served one is compared with later, beside those that its answer names anyway.

An evaluation compares with the same ones. No answer shows them, so they are made only for answers
that are written down to be scored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llm_trader.arrays import Rows
from llm_trader.embedding.features import VOLATILITY_FLOOR
from llm_trader.index.memory import admitted
from llm_trader.index.points import PointTable
from llm_trader.index.protocol import FieldRange
from llm_trader.retrieval.forecast import ForecastBase, quantile_places, relative_outcomes
from llm_trader.retrieval.reference import QUANTILE_LEVELS
from llm_trader.retrieval.statistics import OUTCOME_ROWS
from llm_trader.timeframe import Millis


def rescaled_quantiles(window: PointTable, volatility_pct: float) -> list[list[float]] | None:
    """Quantiles of the window's outcomes, each times the volatility of the last 24h now / then, in
    % (horizons, 5). None where that of now is NaN.
    """
    if volatility_pct != volatility_pct:
        return None
    former_pct = np.maximum(window.column("realized_volatility_24h"), VOLATILITY_FLOOR)
    relative = window.values[OUTCOME_ROWS] / former_pct
    places = quantile_places(QUANTILE_LEVELS, len(window))
    relative.partition(places, axis=1)
    named: list[list[float]] = (
        relative[:, places] * max(volatility_pct, VOLATILITY_FLOOR)
    ).tolist()
    return named


def random_rows(
    window: PointTable, ranges: tuple[FieldRange, ...], count: int, as_of_ms: Millis
) -> Rows:
    """Rows of different states of the window that pass the filters, `count` of them or all.

    The same symbol and time draw the same ones.
    """
    candidates = np.flatnonzero(admitted(window, ranges))
    rng = np.random.default_rng([int.from_bytes(window.symbol.encode()), as_of_ms])
    drawn = rng.choice(len(candidates), min(count, len(candidates)), replace=False)
    return np.asarray(candidates[drawn])


def forecast_quantiles(
    base: ForecastBase, window: PointTable, rows: Rows, expected_pct: Sequence[float]
) -> list[list[float]]:
    """Quantiles of the forecast whose neighbours are those rows, in % (horizons, 5)."""
    ascending = np.sort(relative_outcomes(window.values, rows[None]), axis=2)
    return base.mixed_with(ascending).named(expected_pct)
