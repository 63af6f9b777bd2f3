from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.market.absent_spans import Span
from llm_trader.market.refused_rows import RefusedSpan
from llm_trader.market.store import MarketStore
from llm_trader.market.stored_series import candles_of
from llm_trader.timeframe import M3
from tests.market.builders import START_MS, candles_at, run_of_candles


@given(st.sets(st.integers(1, 28), max_size=12))
def test_gaps_and_missing_candles_are_those_of_the_ledger(
    tmp_path_factory: pytest.TempPathFactory, left_out: set[int]
) -> None:
    kept = [START_MS + row * M3.ms for row in range(30) if row not in left_out]
    part, folder = candles_at(kept, M3), tmp_path_factory.mktemp("store")
    with MarketStore.open(folder, write=True, exchange="simulated") as store:
        store.write("BTCUSDT", part, "made", written_at_ms=0)
        (extent,) = store.series_extents()
        ledger = store.gaps("BTCUSDT", part.timeframe)
    assert (extent.gaps, extent.missing) == (len(ledger), len(left_out))
    assert extent.missing == sum(gap.missing for gap in ledger)


def test_refused_rows_are_counted_until_right_ones_arrive(tmp_path: Path) -> None:
    candles = run_of_candles(3)
    with MarketStore.open(tmp_path, write=True, exchange="simulated") as store:
        store.write("BTCUSDT", candles, "made", written_at_ms=0)
        end_ms = int(candles.open_time_ms[-1]) + candles.timeframe.ms
        refused = [
            RefusedSpan(end_ms, end_ms + M3.ms, "high below low"),
            RefusedSpan(end_ms + 5 * M3.ms, end_ms + 6 * M3.ms, "price is not positive"),
        ]
        series, answered = candles_of("BTCUSDT", candles.timeframe), Span(end_ms, 2 * end_ms)
        store.note_answer(series, answered, [], refused)
        assert [extent.refused for extent in store.series_extents()] == [2]
        store.note_answer(series, answered, [])
        assert [extent.refused for extent in store.series_extents()] == [0]
