"""States and outcomes beside a jump of the price: as beside a hole, until it is accepted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llm_trader.errors import StaleDataError
from llm_trader.market.candles import CandleSeries
from llm_trader.market.history import MarketHistory
from llm_trader.market.jumps import find_jumps, mark_jumps
from llm_trader.market.store import MarketStore
from llm_trader.snapshot.builder import INTRADAY_WARM_UP, build_snapshots
from llm_trader.snapshot.outcome import LABEL_ROW, PATH, jump_follows, label_outcomes
from llm_trader.snapshot.source import SnapshotSource, read_history
from llm_trader.snapshot.table import ROW
from llm_trader.timeframe import DAY_MS, H4, HOUR_MS, M5, M15, Millis, iso8601
from tests.cli.corridor import write
from tests.market.builders import START_MS
from tests.snapshot.histories import BYBIT_2025, candle_rows, real, same_snapshots, simulated

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


@pytest.mark.soak
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


LABELLED_HOURS = {"outcome_15m": 0.25, "outcome_1h": 1, "outcome_4h": 4, "outcome_24h": 24}


def labels_at(candles: CandleSeries, times: np.ndarray, name: str) -> np.ndarray:
    return label_outcomes(candles, times)[LABEL_ROW[name]]


@pytest.mark.parametrize(("name", "hours"), LABELLED_HOURS.items())
def test_an_outcome_is_unknown_exactly_where_its_window_crosses_the_jump(
    name: str, hours: float
) -> None:
    candles = mark_jumps(redenominated().intraday, [])
    clean = simulated(DAYS).intraday
    horizon_ms = int(hours * HOUR_MS)
    times = np.arange(JUMP_MS - 26 * HOUR_MS, JUMP_MS + HOUR_MS, M5.ms)
    # The candle of the jump opens at JUMP_MS, so a window that ends there does not see it.
    crosses = (times <= JUMP_MS) & (times + horizon_ms > JUMP_MS)
    labels = labels_at(candles, times, name)
    assert np.isnan(labels).tolist() == crosses.tolist()
    truth = labels_at(clean, times, name)[~crosses]
    assert labels[~crosses] == pytest.approx(truth, rel=1e-9)
    assert (
        jump_follows(candles, times).tolist()
        == np.isnan(labels_at(candles, times, "outcome_24h")).tolist()
    )


def test_an_outcome_across_a_hole_and_the_jump_behind_it_is_unknown() -> None:
    candles = redenominated().intraday
    kept = (candles.open_time_ms < JUMP_MS) | (candles.open_time_ms >= JUMP_MS + 2 * M5.ms)
    holed = mark_jumps(candle_rows(candles, kept), [])
    assert holed.jumps_ms.tolist() == [JUMP_MS + 2 * M5.ms]
    times = JUMP_MS + np.array([-2 * HOUR_MS, -HOUR_MS // 2, 0, 3 * M5.ms])
    known = np.isfinite(labels_at(holed, times, "outcome_1h"))
    assert known.tolist() == [True, False, False, True]
    # Nor does a run of candles that goes on across short holes go on across this one.
    assert len(holed.segment_starts(3)) == 2


def test_all_labels_of_a_window_across_a_jump_are_unknown() -> None:
    candles = mark_jumps(redenominated().intraday, [])
    assert np.isnan(label_outcomes(candles, np.array([JUMP_MS]))).all()
    long_path = label_outcomes(candles, np.array([JUMP_MS - 4 * HOUR_MS]))
    assert np.isnan(long_path[LABEL_ROW[PATH[0]] :]).all()
    assert np.isnan(long_path[LABEL_ROW["first_barrier"]]).all()


def test_a_bad_tick_hides_the_windows_that_hold_it_and_the_state_at_its_close() -> None:
    clean = simulated(DAYS).intraday
    spiked = scaled_from(scaled_from(clean, JUMP_MS, 10.0), JUMP_MS + M5.ms, 0.1)
    candles = mark_jumps(spiked, [])
    assert candles.jumps_ms.tolist() == [JUMP_MS, JUMP_MS + M5.ms]
    times = JUMP_MS + M5.ms * np.arange(-3, 4)
    known = np.isfinite(labels_at(candles, times, "outcome_15m"))
    assert known.tolist() == [True, False, False, False, False, True, True]


def test_a_spike_that_is_only_in_a_high_hides_the_windows_that_hold_it() -> None:
    clean = simulated(DAYS).intraday
    row = int(np.searchsorted(clean.open_time_ms, JUMP_MS))
    high = clean.high.copy()
    high[row] *= 5
    candles = mark_jumps(replace(clean, high=high), [])
    times = np.array([JUMP_MS - HOUR_MS, JUMP_MS, JUMP_MS + M5.ms])
    known = np.isfinite(labels_at(candles, times, "max_runup_1h"))
    assert known.tolist() == [True, False, True]


def test_after_its_acceptance_a_jump_is_a_move_like_any_other(store: MarketStore) -> None:
    times = np.array([JUMP_MS - HOUR_MS])
    before = store.symbol_version(SYMBOL)
    accepted = store.accept_jump(SYMBOL, JUMP_MS)
    assert {jump.timeframe for jump in accepted} == {"5m", "4h"}
    assert store.symbol_version(SYMBOL) != before
    history = read_history(store, SYMBOL, M5, JUMP_MS, JUMP_MS + DAY_MS)
    assert not len(history.intraday.jumps_ms)
    assert not len(history.four_hour.jumps_ms)
    (change,) = labels_at(history.intraday, times, "outcome_4h")
    assert change == pytest.approx(99_900, rel=0.05)


def test_a_source_that_is_open_sees_the_acceptance(store: MarketStore) -> None:
    source = SnapshotSource(store, M5, M15.ms)
    as_of_ms = JUMP_MS + 4 * HOUR_MS
    rsi = ROW["rsi_14"]
    assert np.isnan(source.view(SYMBOL).known_fields(as_of_ms)[rsi]).all()
    store.accept_jump(SYMBOL, JUMP_MS + M5.ms // 2)
    assert np.isfinite(source.view(SYMBOL).known_fields(as_of_ms)[rsi]).all()


def test_a_query_soon_after_a_jump_is_told_why_there_is_no_state(store: MarketStore) -> None:
    view = SnapshotSource(store, M5, M15.ms).view(SYMBOL)
    told = f"the price jumps by more than ×3 at {iso8601(JUMP_MS)}, .* llm-trader data accept-jump"
    with pytest.raises(StaleDataError, match=told):
        view.latest(JUMP_MS + 4 * HOUR_MS, HOUR_MS)


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT", "SOLUSDT"])
def test_real_markets_have_no_jump(real_data: Path, symbol: str) -> None:
    history = real(real_data, BYBIT_2025, symbol)
    assert not find_jumps(symbol, history.intraday)
    assert not find_jumps(symbol, history.four_hour)
