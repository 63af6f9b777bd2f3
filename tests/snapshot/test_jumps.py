"""States and outcomes beside a jump of the price: as beside a hole, until it is accepted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llm_trader.market.candles import CandleSeries
from llm_trader.market.history import MarketHistory
from llm_trader.market.store import MarketStore
from llm_trader.snapshot.builder import INTRADAY_WARM_UP, build_snapshots
from llm_trader.snapshot.source import SnapshotSource, read_history
from llm_trader.timeframe import DAY_MS, H4, HOUR_MS, M5, M15, Millis
from tests.cli.corridor import write
from tests.market.builders import START_MS
from tests.snapshot.histories import same_snapshots, simulated

SYMBOL = "BTCUSDT"
DAYS = 26
JUMP_MS = START_MS + 24 * DAY_MS + 2 * HOUR_MS


def scaled_from(candles: CandleSeries, start_ms: Millis, factor: float) -> CandleSeries:
    """A redenomination: all prices from one time on are multiplied."""
    factors = np.where(candles.open_time_ms >= start_ms, factor, 1.0)
    names = ("open", "high", "low", "close")
    return replace(candles, **{name: getattr(candles, name) * factors for name in names})


def redenominated(factor: float = 1000.0) -> MarketHistory:
    history = simulated(DAYS)
    coarse_ms = JUMP_MS - JUMP_MS % H4.ms
    return replace(
        history,
        intraday=scaled_from(history.intraday, JUMP_MS, factor),
        # Its first candle of the new unit opened in the old one; which one makes no difference.
        four_hour=scaled_from(history.four_hour, coarse_ms, factor),
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MarketStore]:
    with MarketStore.open(tmp_path / "store", write=True, exchange="simulated") as opened:
        write(opened, redenominated())
        yield opened


def test_a_history_read_from_a_store_names_its_jumps(store: MarketStore) -> None:
    history = read_history(store, SYMBOL, M5, JUMP_MS, JUMP_MS + DAY_MS)
    assert history.intraday.jumps_ms.tolist() == [JUMP_MS]
    assert history.four_hour.jumps_ms.tolist() == [JUMP_MS - JUMP_MS % H4.ms]
    clean = read_history(store, SYMBOL, M5, JUMP_MS - DAY_MS, JUMP_MS - HOUR_MS)
    assert not len(clean.intraday.jumps_ms)


def test_a_state_needs_its_warm_up_again_after_a_jump(store: MarketStore) -> None:
    history = read_history(store, SYMBOL, M5, JUMP_MS, JUMP_MS + 2 * DAY_MS)
    times = np.arange(JUMP_MS, START_MS + DAYS * DAY_MS, M15.ms)
    rsi = build_snapshots(history, times).column("rsi_14")
    assert np.isfinite(rsi[0])  # before the first candle of the new unit closes
    age = (times - JUMP_MS) // M5.ms
    assert np.isfinite(rsi[1:]).tolist() == (age[1:] >= INTRADAY_WARM_UP).tolist()


def test_a_day_that_grows_across_a_jump_is_the_one_that_a_rebuild_makes(tmp_path: Path) -> None:
    history = redenominated()
    day_ms = JUMP_MS - JUMP_MS % DAY_MS
    times = np.arange(day_ms, day_ms + DAY_MS, M15.ms)
    with MarketStore.open(tmp_path / "grown", write=True, exchange="simulated") as store:
        source = SnapshotSource(store, M5, M15.ms)
        for now_ms in (JUMP_MS - M5.ms, JUMP_MS, JUMP_MS + M5.ms, day_ms + DAY_MS):
            write(store, history.known_at(now_ms))
            view = source.view(SYMBOL)
            fields = np.hstack([view.known_fields(int(time_ms)) for time_ms in times])
        built = build_snapshots(read_history(store, SYMBOL, M5, day_ms, day_ms + DAY_MS), times)
    known = built.scalars[:, : fields.shape[1]]
    assert (
        np.where(np.isnan(fields), 0, fields).tobytes()
        == np.where(np.isnan(known), 0, known).tobytes()
    )


def test_states_of_clean_data_are_those_of_a_history_without_a_search_for_jumps(
    tmp_path: Path,
) -> None:
    with MarketStore.open(tmp_path / "clean", write=True, exchange="simulated") as store:
        write(store, simulated(DAYS))
        read = read_history(store, SYMBOL, M5, JUMP_MS, JUMP_MS + DAY_MS)
    times = np.arange(JUMP_MS, JUMP_MS + DAY_MS, M15.ms)
    assert same_snapshots(build_snapshots(read, times), build_snapshots(simulated(DAYS), times))
