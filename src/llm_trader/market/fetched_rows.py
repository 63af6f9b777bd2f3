"""Makes series of what an exchange sends, by the rules of an import.

Rows that say nothing are left out and counted. Bad rows are refused with a reason; the others of
their page are kept, for an exchange's page is no file that somebody could mend.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic

import numpy as np

from llm_trader.arrays import Floats, Mask, Times
from llm_trader.errors import InvalidDataError
from llm_trader.market.absent_spans import Span
from llm_trader.market.exchange.replies import Page
from llm_trader.market.stored_series import SeriesT
from llm_trader.timeframe import Millis

Validate = Callable[[Mapping[str, object]], SeriesT]


@dataclass(slots=True)
class RowCounts:
    """Rows that were not stored, by reason; `refused_ms` has the refused ones by time."""

    left_out: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    refused_ms: dict[Millis, str] = field(default_factory=dict)


@dataclass(slots=True)
class PageRows(Generic[SeriesT]):
    """The rows of a page while they are put in order."""

    times: Times
    columns: dict[str, Floats]
    counts: RowCounts

    @classmethod
    def within(cls, page: Page, asked: Span, counts: RowCounts) -> PageRows[SeriesT]:
        """The rows of a page that were asked for, in order of time and without repetitions."""
        order = np.argsort(page.times, kind="stable")
        rows = cls(page.times[order], {n: c[order] for n, c in page.columns.items()}, counts)
        # Some venues send a row of before or after; who asked for less does not want it.
        rows._keep((rows.times >= asked.start_ms) & (rows.times < asked.end_ms))
        rows._drop_duplicates()
        return rows

    def leave_out(self, mask: Mask, reason: str) -> None:
        if mask.any():
            self.counts.left_out[reason] += int(mask.sum())
            self._keep(~mask)

    def refuse(self, mask: Mask, reason: str) -> None:
        if mask.any():
            self.counts.refused[reason] += int(mask.sum())
            self.counts.refused_ms |= dict.fromkeys(self.times[mask].tolist(), reason)
            self._keep(~mask)

    def build(self, build: Callable[[PageRows[SeriesT]], SeriesT]) -> SeriesT:
        """The series of the rows that keep the rules of their kind; the others are refused."""
        while True:
            try:
                return build(self)
            except InvalidDataError as error:
                bad = np.zeros(len(self.times), np.bool_)
                reason, row = min(error.first_rows.items(), key=lambda item: item[1])
                bad[row] = True
                self.refuse(bad, reason)

    def _drop_duplicates(self) -> None:
        same_time = np.diff(self.times) == 0
        if not same_time.any():
            return
        differ = np.zeros(len(same_time), np.bool_)
        for column in self.columns.values():
            former, latter = column[:-1], column[1:]
            differ |= ~((former == latter) | (np.isnan(former) & np.isnan(latter)))
        contradicted = np.isin(self.times, self.times[1:][same_time & differ])
        self.refuse(contradicted, "duplicate time with other values")
        self._keep(np.diff(self.times, prepend=self.times[:1] - 1) != 0)

    def _keep(self, mask: Mask) -> None:
        self.times = self.times[mask]
        self.columns = {name: column[mask] for name, column in self.columns.items()}


def leave_out_unknown(rows: PageRows[SeriesT], name: str) -> None:
    rows.leave_out(np.isnan(rows.columns[name]), "value missing")


def leave_out_zero_interest(rows: PageRows[SeriesT], *, any_positive: bool) -> None:
    """As at import: an exchange publishes 0 where it has no value."""
    interest = rows.columns["open_interest"]
    if any_positive or (interest > 0).any():
        rows.leave_out(interest == 0, "open interest of 0 beside positive values, so unknown")
    value = rows.columns.get("open_interest_value")
    if value is not None:
        value[(value == 0) & (rows.columns["open_interest"] > 0)] = np.nan
