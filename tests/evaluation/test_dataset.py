"""What is evaluated is what would have been ingested, and its digest says which data it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_trader.embedding.state import StateSpace
from llm_trader.errors import InvalidInputError, SymbolNotFoundError
from llm_trader.evaluation.dataset import Dataset, read_dataset, read_index
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.ingestion import Spaces
from llm_trader.index.points import STATE, PointTable
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import DAY_MS, HOUR_MS, M3, M5, MINUTE_MS, Millis
from tests.index.builders import (
    SLOT_MS,
    START_MS,
    SYMBOL,
    at,
    points_at,
    same_content,
    stored,
)
from tests.index.markets import (
    COLLECTION,
    END_MS,
    SPACE,
    WARM_MS,
    ingested,
    make_store,
    market,
)

LOOKBACK_DAYS = 3
EVALUATED_MS = WARM_MS + 6 * DAY_MS + 5 * HOUR_MS
UNTIL_MS = EVALUATED_MS + 4 * DAY_MS + 7 * HOUR_MS
LATE = "ETHUSDT"  # of which the store knows the first days only


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    late = market(LATE).known_at(WARM_MS + 2 * DAY_MS)
    return make_store(tmp_path_factory.mktemp("market") / "store", market(), late)


@pytest.fixture
def store(store_path: Path) -> Iterator[MarketStore]:
    with MarketStore.open(store_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def dataset(store_path: Path) -> Dataset:
    with MarketStore.open(store_path) as opened:
        return read(opened)


def read(
    store: MarketStore,
    start_ms: Millis = EVALUATED_MS,
    end_ms: Millis = UNTIL_MS,
    symbols: tuple[str, ...] = (SYMBOL,),
    **more: Any,
) -> Dataset:
    plain: dict[str, Any] = {"lookback_days": LOOKBACK_DAYS, "interval_ms": SLOT_MS}
    return read_dataset(store, Spaces(SPACE), list(symbols), start_ms, end_ms, **(plain | more))


def made(points: PointTable, *others: PointTable, start: int = 0, end: int = 10**6) -> Dataset:
    return Dataset(
        points={of.symbol: of for of in (points, *others)},
        intraday=M5,
        exchange="bybit",
        start_ms=START_MS + start * SLOT_MS,
        end_ms=START_MS + end * SLOT_MS,
    )


async def test_points_are_those_of_an_ingestion_of_the_same_time(
    dataset: Dataset, store_path: Path, tmp_path: Path
) -> None:
    points = dataset.points[SYMBOL]
    with EmbeddedIndex.create_or_open(tmp_path / "index", COLLECTION) as index:
        await ingested(
            store_path,
            index,
            start_ms=EVALUATED_MS - (LOOKBACK_DAYS + 1) * DAY_MS,
            end_ms=UNTIL_MS,
        )
        assert same_content(points, await stored(index))
        told = await read_index(
            index, SPACE, [SYMBOL], EVALUATED_MS, UNTIL_MS, lookback_days=LOOKBACK_DAYS
        )
    assert told.digest() == dataset.digest()
    assert replace(told, points={}) == replace(dataset, points={})
    assert (dataset.exchange, dataset.intraday) == ("bybit", M5)


def test_a_candle_that_closes_after_the_clock_gives_no_outcome(store: MarketStore) -> None:
    for now_ms, last_ms in ((END_MS, END_MS - DAY_MS), (END_MS - 1, END_MS - DAY_MS - SLOT_MS)):
        points = read(store, end_ms=END_MS, now_ms=now_ms).points[SYMBOL]
        assert points.timestamp_ms[-1] == last_ms


async def test_of_an_index_only_the_same_time_is_read(store_path: Path, tmp_path: Path) -> None:
    with EmbeddedIndex.create_or_open(tmp_path / "index", COLLECTION) as index:
        await ingested(store_path, index)
        told = await read_index(
            index, SPACE, [SYMBOL], EVALUATED_MS, UNTIL_MS, lookback_days=LOOKBACK_DAYS
        )
        first_ms = EVALUATED_MS - (LOOKBACK_DAYS + 1) * DAY_MS
        times = np.arange(first_ms, UNTIL_MS + 1, SLOT_MS)
        assert np.array_equal(told.points[SYMBOL].timestamp_ms, times)
        with pytest.raises(SymbolNotFoundError, match=LATE):
            await read_index(index, SPACE, [SYMBOL, LATE], EVALUATED_MS, UNTIL_MS, lookback_days=3)
        with pytest.raises(InvalidInputError, match=rf"{SYMBOL}.*llm-trader ingest"):
            await read_index(index, SPACE, [SYMBOL], END_MS, END_MS + DAY_MS, lookback_days=3)
        with pytest.raises(InvalidInputError, match="llm-trader index rebuild"):
            await read_index(
                index, StateSpace(M3), [SYMBOL], EVALUATED_MS, UNTIL_MS, lookback_days=3
            )


def test_a_trimmed_dataset_starts_and_ends_with_a_query() -> None:
    plain = made(points_at(range(5, 300)), start=1, end=250)
    trimmed = plain.trimmed(HOUR_MS)
    assert (trimmed.start_ms, trimmed.end_ms) == tuple(at([8, 248]))
    assert trimmed.queries(SYMBOL, HOUR_MS).timestamp_ms.tolist() == at(range(8, 249, 4)).tolist()
    with pytest.raises(InvalidInputError, match=r"every 1440 minutes.*llm-trader data info"):
        made(points_at(range(5, 90)), start=1).trimmed(DAY_MS)


def test_nothing_is_from_outside_the_lookback_and_the_evaluated_time(dataset: Dataset) -> None:
    first_ms = EVALUATED_MS - (LOOKBACK_DAYS + 1) * DAY_MS
    times = np.arange(first_ms, UNTIL_MS + 1, SLOT_MS)
    assert np.array_equal(dataset.points[SYMBOL].timestamp_ms, times)


def test_times_before_the_first_complete_and_after_the_last_labelled_state_have_no_points(
    store: MarketStore,
) -> None:
    whole = read(store, WARM_MS + DAY_MS, END_MS + DAY_MS, lookback_days=30).points[SYMBOL]
    assert whole.timestamp_ms[0] == WARM_MS
    assert whole.timestamp_ms[-1] == END_MS - DAY_MS


def test_each_query_is_one_of_the_points_and_each_window_is_whole(dataset: Dataset) -> None:
    queries, points = dataset.queries(SYMBOL, HOUR_MS), dataset.points[SYMBOL]
    assert queries.timestamp_ms[0] - LOOKBACK_DAYS * DAY_MS >= points.timestamp_ms[0]
    rows = np.searchsorted(points.timestamp_ms, queries.timestamp_ms)
    assert np.array_equal(points.values[:, rows], queries.values)
    assert np.array_equal(points.vectors[STATE][rows], queries.vectors[STATE])


@pytest.mark.parametrize("step_ms", [15 * MINUTE_MS, 30 * MINUTE_MS, HOUR_MS, 4 * HOUR_MS, DAY_MS])
def test_queries_are_asked_each_step_first_and_last_included(
    dataset: Dataset, step_ms: Millis
) -> None:
    first = EVALUATED_MS + -EVALUATED_MS % step_ms
    expected = np.arange(first, UNTIL_MS + 1, step_ms)
    assert np.array_equal(dataset.queries(SYMBOL, step_ms).timestamp_ms, expected)


@given(start=st.integers(0, 200), length=st.integers(0, 200), step=st.sampled_from([1, 2, 4, 96]))
def test_queries_are_the_points_on_the_grid_within_both_ends(
    start: int, length: int, step: int
) -> None:
    slots = np.delete(np.arange(300), [7, 50, 96])
    found = made(points_at(slots), start=start, end=start + length).queries(SYMBOL, step * SLOT_MS)
    plain = [slot for slot in slots if start <= slot <= start + length and slot % step == 0]
    assert found.timestamp_ms.tolist() == at(plain).tolist()


def test_the_size_of_batches_is_told_as_progress_until_all_are_done(store: MarketStore) -> None:
    heard: list[tuple[str, int, int]] = []
    read(
        store,
        progress=lambda symbol, done, total: heard.append((symbol, done, total)),
    )
    total = (LOOKBACK_DAYS + 1 + 4) * 96 + 7 * 4 + 1
    assert heard[-1] == (SYMBOL, total, total)
    assert [done for _, done, _ in heard] == sorted({done for _, done, _ in heard})


@pytest.mark.parametrize("symbol", [LATE, "XRPUSDT"])
def test_a_symbol_without_a_labelled_state_in_the_time_is_refused_with_the_remedy(
    store: MarketStore, symbol: str
) -> None:
    with pytest.raises(InvalidInputError, match=rf"{symbol}.*2024-01-27.*llm-trader data info"):
        read(store, symbols=(SYMBOL, symbol))


@given(data=st.data())
def test_the_digest_changes_with_any_value(data: st.DataObject) -> None:
    points = points_at(range(20))
    values, times = points.values.copy(), points.timestamp_ms.copy()
    vectors = points.vectors[STATE].copy()
    array = data.draw(st.sampled_from([values, times, vectors]))
    place = data.draw(st.integers(0, array.size - 1))
    array.flat[place] = array.flat[place] + 1 if array is times else -array.flat[place]
    changed = replace(points, timestamp_ms=times, values=values, vectors={STATE: vectors})
    assert made(changed).digest() != made(points).digest()


def test_the_digest_changes_with_the_evaluated_time_and_the_symbols() -> None:
    points, other = points_at(range(20)), points_at(range(20), symbol="ETHUSDT")
    digests = {
        made(points).digest(),
        made(points, start=1).digest(),
        made(points, end=19).digest(),
        made(other).digest(),
        made(points, other).digest(),
        made(points.take(slice(0, 19))).digest(),
    }
    assert len(digests) == 6
    assert all(len(one) == 12 and int(one, 16) >= 0 for one in digests)


def test_the_digest_depends_on_neither_the_order_of_symbols_nor_the_run_nor_memory() -> None:
    one, other = points_at(range(20)), points_at(range(20), 1, symbol="ETHUSDT")
    plain = made(one, other).digest()
    assert made(other, one).digest() == plain
    assert made(points_at(range(20), run=7), other).digest() == plain
    assert made(replace(one, values=np.asfortranarray(one.values)), other).digest() == plain
