"""A day that grows with its data is, to the bit, the day that a rebuild would make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_trader.market.history import MarketHistory
from llm_trader.market.store import MarketStore
from llm_trader.snapshot import source as source_module
from llm_trader.snapshot.source import SnapshotSource
from llm_trader.timeframe import DAY_MS, HOUR_MS, M5, M15, Millis
from tests.cli.corridor import write
from tests.market.builders import START_MS
from tests.snapshot.histories import between, simulated, with_holes

SYMBOL = "BTCUSDT"
DAYS = 26
DAY_START_MS = START_MS + (DAYS - 1) * DAY_MS
TIMES = range(DAY_START_MS, DAY_START_MS + DAY_MS, M15.ms)


@contextmanager
def new_store(history: MarketHistory) -> Iterator[MarketStore]:
    with (
        TemporaryDirectory() as folder,
        MarketStore.open(Path(folder), write=True, exchange="simulated") as store,
    ):
        write(store, history)
        yield store


def fields_of_day(source: SnapshotSource, symbol: str = SYMBOL) -> np.ndarray:
    view = source.view(symbol)
    return np.hstack([view.known_fields(time_ms) for time_ms in TIMES])


def rebuilt_fields(store: MarketStore, symbol: str = SYMBOL) -> np.ndarray:
    return fields_of_day(SnapshotSource(store, M5, M15.ms), symbol)


def other_price(history: MarketHistory, start_ms: Millis, end_ms: Millis) -> MarketHistory:
    """The candles of a range, corrected by their exchange."""
    part = between(history, start_ms, end_ms)
    columns = {name: values * 1.01 for name, values in part.intraday.columns() if name != "volume"}
    return replace(part, intraday=replace(part.intraday, **columns))


# An example takes a quarter of a second for each step.
EXAMPLES = settings.default.max_examples // 5
STEPS = 6 if EXAMPLES > 2 else 1


@settings(max_examples=EXAMPLES)
@given(
    st.integers(0, 2**32),
    st.lists(st.sampled_from([M5.ms, 2 * HOUR_MS, 9 * HOUR_MS]), min_size=1, max_size=STEPS),
    st.data(),
)
def test_a_day_extended_step_by_step_equals_one_that_is_built_at_once(
    seed: int, steps_ms: list[Millis], data: st.DataObject
) -> None:
    history = with_holes(simulated(DAYS), seed)
    now_ms = DAY_START_MS
    with new_store(history.known_at(now_ms)) as store:
        source = SnapshotSource(store, M5, M15.ms)
        for step_ms in (*steps_ms, DAY_MS):
            asked_ms = now_ms + data.draw(st.integers(0, 2 * HOUR_MS))
            source.view(SYMBOL).known_fields(min(asked_ms, TIMES[-1]))
            next_ms = min(now_ms + step_ms, DAY_START_MS + DAY_MS)
            write(store, between(history.known_at(next_ms), now_ms - 5 * HOUR_MS, next_ms + 1))
            if data.draw(st.integers(0, 3)) == 0:
                corrected_ms = now_ms - data.draw(st.integers(0, 30)) * HOUR_MS
                write(store, other_price(history, corrected_ms, corrected_ms + HOUR_MS))
            now_ms = next_ms
            known = sum(time_ms <= now_ms for time_ms in TIMES)
            extended, rebuilt = fields_of_day(source), rebuilt_fields(store)
            assert extended[:, :known].tobytes() == rebuilt[:, :known].tobytes()
        assert extended.tobytes() == rebuilt.tobytes()


def test_a_new_candle_builds_only_the_states_that_can_see_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    history = simulated(DAYS)
    noon_ms = DAY_START_MS + 12 * HOUR_MS
    built: list[np.ndarray] = []
    plain = source_module.build_snapshots

    def recording(history: MarketHistory, as_of_ms: np.ndarray, *model: object) -> object:
        built.append(as_of_ms)
        return plain(history, as_of_ms, *model)

    monkeypatch.setattr(source_module, "build_snapshots", recording)
    with new_store(history.known_at(noon_ms)) as store:
        source = SnapshotSource(store, M5, M15.ms)
        source.view(SYMBOL).known_fields(noon_ms)
        write(store, between(history.known_at(noon_ms + M15.ms), noon_ms, None))
        source.view(SYMBOL).known_fields(noon_ms + M15.ms)
    assert [times.tolist() for times in built] == [
        [time_ms for time_ms in TIMES if time_ms <= noon_ms],
        [noon_ms + M15.ms],
    ]


def test_a_write_to_one_symbol_leaves_the_states_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    history = simulated(DAYS)
    other = replace(history, symbol="ETHUSDT")
    reads: list[str] = []
    plain = MarketStore.stored_history

    def recording(store: MarketStore, symbol: str, *args: object, **options: object) -> object:
        reads.append(symbol)
        return plain(store, symbol, *args, **options)  # type: ignore[arg-type]

    with new_store(history) as store:
        write(store, other.known_at(DAY_START_MS + HOUR_MS))
        source = SnapshotSource(store, M5, M15.ms)
        monkeypatch.setattr(MarketStore, "stored_history", recording)
        fields_of_day(source)
        write(store, other)
        fields_of_day(source)
        assert reads == [SYMBOL]
        assert fields_of_day(source, "ETHUSDT").tobytes() == fields_of_day(source).tobytes()


def test_a_query_reads_the_version_of_the_store_once(monkeypatch: pytest.MonkeyPatch) -> None:
    history = simulated(DAYS)
    reads: list[str] = []
    plain = MarketStore.symbol_version

    def recording(store: MarketStore, symbol: str) -> object:
        reads.append(symbol)
        return plain(store, symbol)

    monkeypatch.setattr(MarketStore, "symbol_version", recording)
    with new_store(history) as store:
        view = SnapshotSource(store, M5, M15.ms).view(SYMBOL)
        as_of_ms = view.latest_ms(DAY_START_MS + DAY_MS, HOUR_MS)
        view.without_series(as_of_ms)
        view.data_age_ms(DAY_START_MS + DAY_MS)
    assert reads == [SYMBOL]
