"""Points beside a jump of the price: refused with a reason of their own, until it is accepted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.ingestion import NOT_RESOLVED
from llm_trader.market.history import MarketHistory
from llm_trader.market.jumps import find_jumps
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import DAY_MS, HOUR_MS, M5
from tests.index.builders import SLOT_MS, SYMBOL, stored
from tests.index.markets import COLLECTION, END_MS, WARM_MS, ingested, make_store, market

JUMP_MS = WARM_MS + 3 * DAY_MS + 2 * HOUR_MS
BACK_MS = JUMP_MS + M5.ms
WEEK_MS = 7 * DAY_MS
JUMPED = "a jump of more than ×3 in the 24h after it; if it is real: llm-trader data accept-jump"


def with_bad_tick(history: MarketHistory, factor: float = 10.0) -> MarketHistory:
    """One 5m candle of another price; the exchange's own 4h candles do not have it."""
    candles = history.intraday
    factors = np.where(candles.open_time_ms == JUMP_MS, factor, 1.0)
    names = ("open", "high", "low", "close")
    wrong = {name: getattr(candles, name) * factors for name in names}
    return replace(history, intraday=replace(candles, **wrong))


async def test_a_point_whose_outcome_crosses_a_jump_is_refused_until_the_jump_is_accepted(
    tmp_path: Path,
) -> None:
    store_path = make_store(tmp_path / "store", with_bad_tick(market()))
    with EmbeddedIndex.create_or_open(tmp_path / "index", COLLECTION) as index:
        (first,) = await ingested(store_path, index)
        held = set((await stored(index)).timestamp_ms.tolist())
        times = range(WARM_MS, END_MS - DAY_MS + 1, SLOT_MS)
        crossing = {t for t in times if t <= BACK_MS and t + DAY_MS > JUMP_MS}
        assert not held & crossing
        assert first.refused[JUMPED] == len(crossing)
        assert first.refused[NOT_RESOLVED] == DAY_MS // SLOT_MS
        # Expected volatility needs a week without a jump, as it does without a hole.
        silent = {t for t in times if BACK_MS < t <= BACK_MS + WEEK_MS + M5.ms}
        assert sum(first.refused.values()) == len(crossing) + len(silent) + DAY_MS // SLOT_MS
        assert held == set(times) - crossing - silent

        with MarketStore.open(store_path, write=True) as store:
            for jump in find_jumps(SYMBOL, with_bad_tick(market()).intraday):
                store.accept_jump(SYMBOL, jump.time_ms)
        (second,) = await ingested(store_path, index)
        assert second.refused == {NOT_RESOLVED: DAY_MS // SLOT_MS}
        assert second.added == len(crossing | silent)
        assert set((await stored(index)).timestamp_ms.tolist()) == set(times)

        with MarketStore.open(store_path, write=True) as store:
            for jump in find_jumps(SYMBOL, with_bad_tick(market()).intraday):
                store.withdraw_jump(SYMBOL, jump.time_ms)
        await ingested(store_path, index)
        assert set((await stored(index)).timestamp_ms.tolist()) == held


async def test_a_clean_market_is_refused_nothing_for_a_jump(tmp_path: Path) -> None:
    store_path = make_store(tmp_path / "store", market())
    with EmbeddedIndex.create_or_open(tmp_path / "index", COLLECTION) as index:
        (report,) = await ingested(store_path, index)
    assert set(report.refused) == {NOT_RESOLVED}
