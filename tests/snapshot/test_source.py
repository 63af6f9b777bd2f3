"""Snapshots from a store, at any time, while somebody else may be writing to it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from llm_trader.errors import StaleDataError, SymbolNotFoundError
from llm_trader.market.history import MarketHistory
from llm_trader.market.store import MarketStore
from llm_trader.market.stored_history import StoredHistory
from llm_trader.snapshot.builder import build_snapshots
from llm_trader.snapshot.model import SCALARS
from llm_trader.snapshot.source import SnapshotSource, SymbolView
from llm_trader.timeframe import DAY_MS, HOUR_MS, M5, M15, MINUTE_MS, Millis
from tests.cli.corridor import AT_MS, END_MS, START_MS, SYMBOL, Corridor, copied, write
from tests.processes import run
from tests.snapshot.histories import with_repeated_candles

PRICE = SCALARS.index("price")
HALF_HOUR = 30 * MINUTE_MS

_REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def source(corridor: Corridor) -> Iterator[SnapshotSource]:
    with MarketStore.open(corridor.store) as store:
        yield SnapshotSource(store, M5, M15.ms)


def cut(history: MarketHistory, end_ms: Millis) -> MarketHistory:
    """A history that ends earlier."""
    return history.known_at(end_ms)


def without_candles(history: MarketHistory, start_ms: Millis, end_ms: Millis) -> MarketHistory:
    kept = (history.intraday.open_time_ms < start_ms) | (history.intraday.open_time_ms >= end_ms)
    candles = type(history.intraday)(
        M5,
        history.intraday.open_time_ms[kept],
        *(values[kept] for _, values in history.intraday.columns()),
    )
    return MarketHistory(
        history.symbol,
        candles,
        history.four_hour,
        history.funding,
        history.open_interest,
        history.open_interest_interval_ms,
    )


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
def test_known_fields_are_those_built_from_the_whole_history_bit_for_bit(
    source: SnapshotSource, corridor: Corridor, symbol: str
) -> None:
    times = np.arange(AT_MS - DAY_MS, AT_MS + 2 * HOUR_MS, M15.ms, dtype=np.int64)
    built = build_snapshots(corridor.histories[symbol], times).scalars
    assert np.isfinite(built).all()
    for column, time_ms in enumerate(times.tolist()):
        fields = source.view(symbol).known_fields(time_ms)
        assert fields.shape == (len(SCALARS), 1)
        assert fields[:, 0].tobytes() == built[:, column].tobytes()


def test_fields_that_are_not_known_are_nan_and_the_same_ones_as_built(
    source: SnapshotSource, corridor: Corridor
) -> None:
    for time_ms in (START_MS, START_MS + 5 * DAY_MS, END_MS + HOUR_MS):
        built = corridor.state_at(time_ms).scalars
        assert np.isnan(built).any()
        assert source.view(SYMBOL).known_fields(time_ms).tobytes() == built.tobytes()
    assert not np.isfinite(source.view("DOGEUSDT").known_fields(AT_MS)[PRICE]).any()


def test_between_two_times_of_the_grid_the_earlier_one_counts(source: SnapshotSource) -> None:
    on_grid = source.view(SYMBOL).known_fields(AT_MS)
    assert source.view(SYMBOL).known_fields(AT_MS + M15.ms - 1).tobytes() == on_grid.tobytes()
    assert source.view(SYMBOL).known_fields(AT_MS + M15.ms).tobytes() != on_grid.tobytes()


def test_a_snapshot_is_the_built_one_series_included(
    source: SnapshotSource, corridor: Corridor
) -> None:
    for found in (
        source.view(SYMBOL).exactly_at(AT_MS),
        source.view(SYMBOL).latest(AT_MS + 1, HALF_HOUR),
    ):
        built = corridor.state_at(AT_MS)
        assert found.scalars.tobytes() == built.scalars.tobytes()
        assert found.series.tobytes() == built.series.tobytes()
        assert found.as_of_ms.tolist() == [AT_MS]


_WRITE_THE_REST = """
import sys
from pathlib import Path
from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.market.stored_history import StoredHistory
from llm_trader.timeframe import M5
from tests.cli.corridor import DAYS, START_MS, SYMBOL, write

history = simulate(SYMBOL, start_ms=START_MS, days=DAYS, seed=7, timeframe=M5)
with MarketStore.open(Path(sys.argv[1]), write=True) as store:
    write(store, history)
"""


def test_a_candle_that_another_process_writes_appears(corridor: Corridor, tmp_path: Path) -> None:
    path = tmp_path / "store"
    history = corridor.histories[SYMBOL]
    with MarketStore.open(path, write=True, exchange="simulated") as store:
        write(store, cut(history, AT_MS))
    with MarketStore.open(path) as store:
        source = SnapshotSource(store, M5, M15.ms)
        later = AT_MS + M15.ms
        before = source.view(SYMBOL).known_fields(AT_MS)
        assert np.isfinite(before).all()
        assert np.isnan(source.view(SYMBOL).known_fields(later)[PRICE, 0])
        assert source.view(SYMBOL).data_age_ms(later) == M15.ms
        assert source.view(SYMBOL).latest(later, HALF_HOUR).as_of_ms.tolist() == [AT_MS]

        run([sys.executable, "-c", _WRITE_THE_REST, str(path)]).check_returncode()

        built = corridor.state_at(later).scalars
        assert source.view(SYMBOL).known_fields(later).tobytes() == built.tobytes()
        assert source.view(SYMBOL).known_fields(AT_MS).tobytes() == before.tobytes()
        assert source.view(SYMBOL).data_age_ms(later) == 0
        assert source.view(SYMBOL).latest(later, HALF_HOUR).as_of_ms.tolist() == [later]


def test_a_day_is_built_once_while_the_store_stays_as_it_is(
    corridor: Corridor, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    plain = MarketStore.stored_history

    def counted(
        store: MarketStore, symbol: str, *arguments: object, **named: object
    ) -> StoredHistory:
        reads.append(symbol)
        return plain(store, symbol, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(MarketStore, "stored_history", counted)
    with MarketStore.open(corridor.store) as store:
        source = SnapshotSource(store, M5, M15.ms)
        for hours in range(12):
            source.view(SYMBOL).known_fields(AT_MS - hours * HOUR_MS)
        assert reads == [SYMBOL]
        source.view("ETHUSDT").known_fields(AT_MS)
        source.view(SYMBOL).known_fields(AT_MS - DAY_MS)
        assert reads == [SYMBOL, "ETHUSDT", SYMBOL]


def test_the_age_of_the_data_counts_from_the_close_of_the_newest_candle(
    source: SnapshotSource,
) -> None:
    assert source.view(SYMBOL).data_age_ms(AT_MS) == 0
    assert source.view(SYMBOL).data_age_ms(AT_MS + 4 * MINUTE_MS) == 4 * MINUTE_MS
    assert source.view(SYMBOL).data_age_ms(END_MS + DAY_MS) == DAY_MS
    assert source.view(SYMBOL).data_age_ms(START_MS + M5.ms) == 0
    assert source.view(SYMBOL).data_age_ms(START_MS + M5.ms - 1) is None
    with pytest.raises(SymbolNotFoundError, match="'DOGEUSDT'; available: BTCUSDT, ETHUSDT"):
        source.view("DOGEUSDT").data_age_ms(AT_MS)


def test_after_the_last_candle_the_latest_snapshot_steps_back_as_far_as_allowed(
    source: SnapshotSource,
) -> None:
    for age in (0, 1, 10 * MINUTE_MS, HALF_HOUR):
        assert source.view(SYMBOL).latest(END_MS + age, HALF_HOUR).as_of_ms.tolist() == [END_MS]
    with pytest.raises(
        StaleDataError, match=r"31 minutes before .*, and 30 minutes are allowed"
    ) as raised:
        source.view(SYMBOL).latest(END_MS + 31 * MINUTE_MS, HALF_HOUR)
    assert raised.value.details == {"data_age_seconds": 31 * 60}
    assert source.view(SYMBOL).latest(END_MS + DAY_MS, DAY_MS).as_of_ms.tolist() == [END_MS]


def test_before_any_candle_the_data_is_stale_and_of_no_age(source: SnapshotSource) -> None:
    with pytest.raises(StaleDataError, match="there is none") as raised:
        source.view(SYMBOL).latest(START_MS, HALF_HOUR)
    assert raised.value.details == {"data_age_seconds": None}


def test_a_symbol_that_is_not_there_is_named_with_those_that_are(source: SnapshotSource) -> None:
    with pytest.raises(SymbolNotFoundError) as raised:
        source.view("DOGEUSDT").latest(AT_MS, HALF_HOUR)
    assert raised.value.details == {"available": ["BTCUSDT", "ETHUSDT"]}


def test_a_short_history_says_what_is_missing(source: SnapshotSource) -> None:
    with pytest.raises(
        StaleDataError, match="fewer than 120 4h candles before it without a long hole"
    ):
        source.view(SYMBOL).latest(START_MS + 10 * DAY_MS, HALF_HOUR)


def test_a_gap_just_before_a_time_makes_the_snapshot_before_the_gap_the_latest(
    corridor: Corridor, tmp_path: Path
) -> None:
    history = without_candles(corridor.histories[SYMBOL], AT_MS - 3 * M5.ms, AT_MS)
    with MarketStore.open(tmp_path, write=True, exchange="simulated") as store:
        write(store, cut(history, AT_MS + HOUR_MS))
    with MarketStore.open(tmp_path) as store:
        source = SnapshotSource(store, M5, M15.ms)
        found = source.view(SYMBOL).latest(AT_MS, HALF_HOUR)
        assert found.as_of_ms.tolist() == [AT_MS - M15.ms]
        assert source.view(SYMBOL).data_age_ms(AT_MS) == M15.ms
        # An hour later the first candle of the last hour is missing, two more are not.
        later = source.view(SYMBOL).latest(AT_MS + HOUR_MS, HALF_HOUR)
        assert later.as_of_ms.tolist() == [AT_MS + 3 * M15.ms]
        assert later.column("missing_candles").tolist() == [3]


def test_a_coarser_grid_is_kept_to(corridor: Corridor) -> None:
    with MarketStore.open(corridor.store) as store:
        source = SnapshotSource(store, M5, HOUR_MS)
        found = source.view(SYMBOL).latest(AT_MS + 59 * MINUTE_MS, HALF_HOUR)
        assert found.as_of_ms.tolist() == [AT_MS]


def test_a_copy_of_a_store_answers_alike(
    source: SnapshotSource, corridor: Corridor, tmp_path: Path
) -> None:
    with MarketStore.open(copied(corridor.store, tmp_path / "copy")) as store:
        other = SnapshotSource(store, M5, M15.ms).view(SYMBOL).known_fields(AT_MS)
    assert other.tobytes() == source.view(SYMBOL).known_fields(AT_MS).tobytes()


@pytest.fixture
def frozen(corridor: Corridor, tmp_path: Path) -> Iterator[SymbolView]:
    """The last six hours before `AT_MS` are one repeated candle."""
    with MarketStore.open(tmp_path / "frozen", write=True, exchange="simulated") as store:
        history = corridor.histories[SYMBOL]
        write(store, with_repeated_candles(history, AT_MS - 6 * HOUR_MS, AT_MS))
        yield SnapshotSource(store, M5, M15.ms).view(SYMBOL)


def test_how_long_candles_repeat_one_another_is_known_at_each_time(frozen: SymbolView) -> None:
    start_ms = AT_MS - 6 * HOUR_MS
    for after_ms in (5 * MINUTE_MS, HOUR_MS, 6 * HOUR_MS):
        assert frozen.unchanged_ms(start_ms + after_ms) == after_ms
    assert frozen.unchanged_ms(start_ms) == 0
    assert frozen.unchanged_ms(AT_MS + 5 * MINUTE_MS) == 0
    assert frozen.unchanged_ms(START_MS) == 0  # before the first candle


def test_a_feed_that_is_frozen_for_too_long_is_stale(frozen: SymbolView) -> None:
    limits = HALF_HOUR, HOUR_MS
    an_hour_in = AT_MS - 5 * HOUR_MS
    assert frozen.latest_ms(an_hour_in, *limits) == an_hour_in
    with pytest.raises(StaleDataError, match="seems frozen: every candle since") as raised:
        frozen.latest_ms(AT_MS, *limits)
    assert raised.value.details["data_age_seconds"] == 6 * 3600
    assert frozen.latest_ms(AT_MS + M15.ms, *limits) == AT_MS + M15.ms
