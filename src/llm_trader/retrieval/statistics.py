"""Outcomes of the matches summed up. Quantiles interpolate linearly."""

from __future__ import annotations

from typing import Final

import numpy as np

from llm_trader.index.points import COLUMN_ROW, PointTable
from llm_trader.market.candles import Floats
from llm_trader.retrieval.answer import OutcomeStatistics, Statistics
from llm_trader.snapshot.outcome import HORIZONS, STOP_LOSS_PCT, TAKE_PROFIT_PCT

# The outcomes stand next to each other, so that a window's are a view.
OUTCOME_ROWS: Final = slice(
    COLUMN_ROW[f"outcome_{next(iter(HORIZONS))}"],
    COLUMN_ROW[f"outcome_{next(iter(HORIZONS))}"] + len(HORIZONS),
)

_BLOCKS: Final = [f"outcome_{name}" for name in HORIZONS]


def quantiles(ascending: Floats, levels: Floats) -> Floats:
    """Quantiles of sorted values along the last axis, interpolating linearly.

    `ascending` has the shape (rows, n); `levels` (rows or 1, levels). Result (rows, levels).
    """
    rows, n = ascending.shape
    position = np.minimum(np.maximum(levels, 0.0), 1.0) * (n - 1)
    below = position.astype(np.intp)
    start = np.arange(0, rows * n, n)[:, None]
    values = np.ravel(ascending)
    low = values[start + below]
    high = values[start + np.minimum(below + 1, n - 1)]
    between: Floats = low + (high - low) * (position - below)
    return between


def summarise(matches: PointTable, similarity: Floats) -> Statistics:
    """Statistics of the matches, most similar first; similarities have the shape (n,)."""
    alike = similarity.tolist()
    n = len(alike)
    blocks = map(_block, matches.values[OUTCOME_ROWS].tolist())
    return Statistics(
        total_matches=n,
        avg_similarity=sum(alike) / n if n else None,
        similarity_range=(alike[-1], alike[0]) if n else None,
        **dict(zip(_BLOCKS, blocks, strict=True)),
        stop_loss_hits=sum(v <= STOP_LOSS_PCT for v in matches.column("max_drawdown_1h").tolist()),
        take_profit_hits=sum(v >= TAKE_PROFIT_PCT for v in matches.column("max_runup_1h").tolist()),
    )


def _block(outcomes: list[float]) -> OutcomeStatistics:
    """Matches are few: plain numbers are faster than arrays."""
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
