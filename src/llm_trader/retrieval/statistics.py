"""Statistics of the outcomes of matches. Quantiles interpolate linearly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from llm_trader.arrays import Floats, Rows
from llm_trader.index.points import COLUMN_ROW
from llm_trader.retrieval.answer import OutcomeStatistics, Statistics
from llm_trader.snapshot.outcome import STOP_LOSS_PCT, TAKE_PROFIT_PCT
from llm_trader.timeframe import HORIZONS

# The outcome columns are adjacent, so those of a whole window are a view.
OUTCOME_ROWS: Final = slice(
    COLUMN_ROW[f"outcome_{next(iter(HORIZONS))}"],
    COLUMN_ROW[f"outcome_{next(iter(HORIZONS))}"] + len(HORIZONS),
)

_BLOCKS: Final = {f"outcome_{name}": COLUMN_ROW[f"outcome_{name}"] for name in HORIZONS}
_DRAWDOWN, _RUNUP = COLUMN_ROW["max_drawdown_1h"], COLUMN_ROW["max_runup_1h"]

# Each row is a list in the order of `COLUMNS`: matches are too few for arrays to pay.
Matches = list[list[float]]


def in_order_sum(values: Floats) -> Floats:
    """The sum along the last axis, one by one: the same whatever the order of memory is."""
    return np.asarray(np.add.accumulate(values, axis=-1)[..., -1])


def quantiles(ascending: Floats, levels: Floats) -> Floats:
    """Quantiles of sorted values along the last axis, interpolating linearly.

    `ascending` has the shape (rows, n); `levels` (rows or 1, levels). Result (rows, levels).
    """
    rows, n = ascending.shape
    start = np.arange(0, rows * n, n)[:, None]
    values = np.ravel(ascending)
    return quantiles_at(lambda places: values[start + places], n, levels)


def quantiles_at(at: Callable[[Rows], Floats], n: int, levels: Floats) -> Floats:
    """The same where `at` gives the values at places among n sorted ones."""
    position = np.minimum(np.maximum(levels, 0.0), 1.0) * (n - 1)
    below = position.astype(np.intp)
    low, high = at(below), at(np.minimum(below + 1, n - 1))
    interpolated: Floats = low + (high - low) * (position - below)
    return interpolated


def summarise(matches: Matches, similarity: list[float]) -> Statistics:
    """Statistics of the matches, each given by its values in the order of `COLUMNS`."""
    n = len(matches)
    blocks = {name: _block([match[row] for match in matches]) for name, row in _BLOCKS.items()}
    return Statistics(
        total_matches=n,
        avg_similarity=sum(similarity) / n if n else None,
        similarity_range=(min(similarity), max(similarity)) if n else None,
        **blocks,
        stop_loss_hits=sum(match[_DRAWDOWN] <= STOP_LOSS_PCT for match in matches),
        take_profit_hits=sum(match[_RUNUP] >= TAKE_PROFIT_PCT for match in matches),
    )


def _block(outcomes: list[float]) -> OutcomeStatistics:
    n = len(outcomes)
    if not n:
        return OutcomeStatistics(None, None, None, None, 0, 0, None)
    ascending = sorted(outcomes)
    median, p10, p90 = (_quantile(ascending, level) for level in (0.5, 0.1, 0.9))
    positive, negative = sum(v > 0 for v in outcomes), sum(v < 0 for v in outcomes)
    return OutcomeStatistics(sum(outcomes) / n, median, p10, p90, positive, negative, positive / n)


def _quantile(ascending: list[float], level: float) -> float:
    position = level * (len(ascending) - 1)
    below = int(position)
    low, high = ascending[below], ascending[min(below + 1, len(ascending) - 1)]
    return low + (high - low) * (position - below)
