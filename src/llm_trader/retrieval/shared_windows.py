"""Base rates and forecast bases of many windows of one symbol, sorted once.

Most of what a window costs is sorting its outcomes. Windows that are parts of one table are sorted
together: the part of the sorted whole that lies in a window is the window, sorted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from llm_trader.arrays import Floats, Rows
from llm_trader.index.points import PointTable
from llm_trader.retrieval.forecast import ForecastBase, relative_outcomes
from llm_trader.retrieval.reference import BaseRates
from llm_trader.retrieval.statistics import OUTCOME_ROWS


class SharedWindows:
    """Windows of a table that holds all of them."""

    def __init__(self, table: PointTable) -> None:
        self._table = table
        self._outcomes = _Sorted(table.values[OUTCOME_ROWS])
        self._relative = _Sorted(relative_outcomes(table.values))

    def holds(self, window: PointTable) -> bool:
        """Whether a window is a part of the table."""
        stamps, all_stamps = window.timestamp_ms, self._table.timestamp_ms
        return (
            window.version_token == self._table.version_token
            and bool(len(stamps))
            and bool(all_stamps[0] <= stamps[0] and stamps[-1] <= all_stamps[-1])
        )

    def base_rates(self, window: PointTable) -> BaseRates:
        return BaseRates.of_ascending(window, self._outcomes.part(*self._rows(window))[1])

    def forecast_base(self, window: PointTable) -> ForecastBase:
        relative, ascending = self._relative.part(*self._rows(window))
        return ForecastBase.of_ascending(ascending, np.add.reduce(relative, axis=1) / len(window))

    def _rows(self, window: PointTable) -> tuple[int, int]:
        first = int(self._table.timestamp_ms.searchsorted(window.timestamp_ms[0]))
        return first, len(window)


class _Sorted:
    """Rows of numbers, in their order and ascending."""

    def __init__(self, values: Floats) -> None:
        self._values = values
        order: Rows = np.argsort(values, axis=1)
        self._ascending = np.take_along_axis(values, order, axis=1)
        # The smaller the numbers, the faster they are compared.
        self._number = np.uint16 if values.shape[1] < 1 << 16 else np.uint32
        self._order: npt.NDArray[Any] = order.astype(self._number)

    def part(self, first: int, count: int) -> tuple[Floats, Floats]:
        """Some columns in their order, and ascending; (rows, count) each."""
        # Below the first, an unsigned difference is large.
        inside = self._order - self._number(first) < count
        places = np.flatnonzero(inside)
        ascending = self._ascending.ravel()[places].reshape(len(inside), count)
        return self._values[:, first : first + count], ascending
