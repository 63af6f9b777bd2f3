"""Margins in plain Python, division by division: what the quick way is held against."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Sequence
from math import ceil

import numpy as np

from llm_trader.evaluation.conformal.bands import Conditions

_FIFTHS = 5
_PARTS_OF_A_DAY = 6


def slow_margins(
    scores: Sequence[float], fitted: Conditions, effective: float, asked: Conditions
) -> list[float]:
    """The margins of the queries in `asked` that scores under conditions ask for.

    Worth `effective` independent ones, n scores move a margin n / (n + 60) of the way from 0.
    """
    edges = np.quantile(fitted.volatility_ratio, [0.2, 0.4, 0.6, 0.8]).tolist()
    cells, of_asked = _cells(fitted, edges), _cells(asked, edges)
    per_cell = [effective / _FIFTHS, effective / _PARTS_OF_A_DAY, effective]
    rest, margins = list(scores), [0.0] * len(asked.hours)
    for division, worth in enumerate(per_cell):
        common = _order_statistic(rest, 0.8)
        offsets = {
            cell: (_order_statistic(of_cell, 0.8) - common) * worth / (worth + 60)
            for cell, of_cell in _grouped(rest, cells[division]).items()
        }
        rest = [x - offsets[cell] for x, cell in zip(rest, cells[division], strict=True)]
        for i, cell in enumerate(of_asked[division]):
            margins[i] += offsets.get(cell, 0.0)
    level = min(0.8 * (effective + 1) / effective, 1.0)
    base = _order_statistic(rest, level) * effective / (effective + 60)
    return [margin + base for margin in margins]


def _cells(conditions: Conditions, edges: list[float]) -> list[list[Hashable]]:
    fifths = [bisect_right(edges, ratio) for ratio in conditions.volatility_ratio.tolist()]
    return [fifths, conditions.hours.tolist(), conditions.symbol.tolist()]


def _grouped(values: list[float], cells: list[Hashable]) -> dict[Hashable, list[float]]:
    grouped: dict[Hashable, list[float]] = {}
    for value, cell in zip(values, cells, strict=True):
        grouped.setdefault(cell, []).append(value)
    return grouped


def _order_statistic(values: list[float], level: float) -> float:
    """The least value at or below which at least that share of the values lies."""
    return sorted(values)[ceil(level * len(values) - 1e-9) - 1]
