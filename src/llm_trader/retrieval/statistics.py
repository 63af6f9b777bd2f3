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

_LEVELS: Final = np.array([[0.5, 0.1, 0.9]])
_BLOCKS: Final = [f"outcome_{name}" for name in HORIZONS]
_NOTHING: Final = OutcomeStatistics(None, None, None, None, 0, 0, None)


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
    n = len(matches)
    return Statistics(
        total_matches=n,
        avg_similarity=float(similarity.mean()) if n else None,
        similarity_range=(float(similarity[-1]), float(similarity[0])) if n else None,
        **dict(zip(_BLOCKS, _blocks(matches.values[OUTCOME_ROWS]), strict=True)),
        stop_loss_hits=int((matches.column("max_drawdown_1h") <= STOP_LOSS_PCT).sum()),
        take_profit_hits=int((matches.column("max_runup_1h") >= TAKE_PROFIT_PCT).sum()),
    )


def _blocks(outcomes: Floats) -> list[OutcomeStatistics]:
    n = outcomes.shape[1]
    if not n:
        return [_NOTHING] * len(outcomes)
    of_levels = quantiles(np.sort(outcomes, axis=1), _LEVELS).tolist()
    means = outcomes.mean(axis=1).tolist()
    positive, negative = (outcomes > 0).sum(axis=1).tolist(), (outcomes < 0).sum(axis=1).tolist()
    return [
        OutcomeStatistics(mean, median, p10, p90, up, down, up / n)
        for mean, (median, p10, p90), up, down in zip(
            means, of_levels, positive, negative, strict=True
        )
    ]
