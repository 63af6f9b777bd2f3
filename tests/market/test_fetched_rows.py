from __future__ import annotations

import numpy as np

from llm_trader.market.absent_spans import Span
from llm_trader.market.candles import CandleSeries
from llm_trader.market.exchange.replies import Page
from llm_trader.market.fetched_rows import PageRows, RowCounts
from llm_trader.timeframe import M3
from tests.market.builders import START_MS, run_of_candles

ASKED = Span(START_MS, START_MS + 10 * M3.ms)


def page_of(order: list[int], *, changed: int | None = None) -> Page:
    """Candles in an order of their numbers; the row at the position `changed` has its own close."""
    candles = run_of_candles(14, start_ms=START_MS - 2 * M3.ms)
    rows = np.array(order) + 2
    columns = {name: column[rows].copy() for name, column in candles.columns()}
    if changed is not None:
        columns["close"][changed] = columns["open"][changed]
    return Page(candles.times[rows], columns, ASKED.end_ms)


def taken(page: Page) -> tuple[list[int], RowCounts]:
    counts = RowCounts()
    rows: PageRows[CandleSeries] = PageRows.within(page, ASKED, counts)
    return ((rows.times - START_MS) // M3.ms).tolist(), counts


def test_rows_of_any_order_come_in_order_of_time_and_repeated_ones_once():
    assert taken(page_of([3, 2, 5, 2, 4, 5])) == ([2, 3, 4, 5], RowCounts())


def test_rows_that_were_not_asked_for_are_not_taken():
    assert taken(page_of([-2, -1, 0, 9, 10, 11]))[0] == [0, 9]


def test_two_different_rows_of_one_time_are_both_refused():
    times, counts = taken(page_of([1, 2, 3, 2], changed=3))
    assert times == [1, 3]
    assert counts.refused == {"duplicate time with other values": 2}
    assert set(counts.refused_ms) == {START_MS + 2 * M3.ms}
