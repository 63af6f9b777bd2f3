from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.market.absent_spans import (
    Span,
    join_spans,
    spans_without_rows,
    without_spans,
)
from llm_trader.market.refused_rows import RefusedSpan
from llm_trader.market.store import MarketStore
from llm_trader.market.stored_series import candles_of, funding_of
from llm_trader.timeframe import M3
from tests.market.builders import run_of_candles

_edges = st.tuples(st.integers(0, 40), st.integers(0, 12))
spans = st.lists(_edges.map(lambda edge: Span(edge[0], edge[0] + edge[1])), max_size=6)


def inside(parts: Iterable[Span]) -> set[int]:
    return {time for part in parts for time in range(*part)}


@given(spans, spans)
def test_what_is_left_is_what_is_in_the_first_and_not_in_the_second(a: list[Span], b: list[Span]):
    rest = without_spans(a, b)
    assert inside(rest) == inside(a) - inside(b)
    assert rest == sorted(rest)


@given(spans)
def test_joined_spans_hold_the_same_and_neither_touch_nor_overlap(parts: list[Span]):
    joined = join_spans(parts)
    assert inside(joined) == inside(parts)
    assert all(earlier.end_ms < later.start_ms for earlier, later in pairwise(joined))


@given(st.sets(st.integers(-5, 60)), st.integers(0, 30), st.integers(1, 30))
def test_rows_of_a_grid_leave_exactly_the_times_without_a_row(
    rows: set[int], start: int, length: int
):
    times = np.array(sorted(rows), dtype=np.int64)
    asked = Span(start, start + length)
    found = spans_without_rows(times, np.ones(len(times), np.int64), 1, asked)
    assert inside(found) == set(range(*asked)) - rows


def test_a_sample_speaks_for_some_time_and_the_next_one_may_be_late():
    times = np.array([0, 10, 21, 45], dtype=np.int64)
    asked = Span(0, 60)
    found = spans_without_rows(times, np.full(4, 12), 1, asked)
    assert found == [Span(22, 45), Span(46, 60)]


def test_what_an_exchange_has_not_stays_in_the_store_and_changes_only_its_symbol(tmp_path: Path):
    with MarketStore.open(tmp_path, write=True, exchange="bybit") as store:
        for symbol in ("BTCUSDT", "ETHUSDT"):
            store.write(symbol, run_of_candles(5), "test", written_at_ms=0)
        other = store.symbol_version("ETHUSDT")
        series = candles_of("BTCUSDT", M3)
        store.note_answer(series, Span(0, 40), [Span(30, 40), Span(10, 20)])
        store.note_answer(series, Span(20, 25), [Span(20, 25)])
        store.note_answer(series, Span(12, 18), [Span(12, 18)])
        assert store.absent_spans(funding_of("BTCUSDT")) == []
        assert store.symbol_version("ETHUSDT") == other
        assert store.symbol_version("BTCUSDT") != other
        assert store.check(deep=True).problems == 0
        store.note_answer(series, Span(14, 16), [], [RefusedSpan(14, 16, "high below low")])
    with MarketStore.open(tmp_path) as store:
        assert store.absent_spans(series) == [Span(10, 14), Span(16, 25), Span(30, 40)]
        assert store.refused_rows(series) == [(14, 16, "high below low")]
