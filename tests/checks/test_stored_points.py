"""Stored points against the market data of now: what was corrected, and what was never known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llm_trader.checks.stored_points import StoredPoints, compare_stored_points
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import COLUMN_ROW, PointTable
from llm_trader.market.store import MarketStore
from llm_trader.snapshot.builder import DEFAULT_RULES
from llm_trader.timeframe import DAY_MS, HOUR_MS, MINUTE_MS, Millis, iso8601
from tests.index.builders import SYMBOL, stored
from tests.index.markets import (
    COLLECTION,
    END_MS,
    NOW_MS,
    WARM_MS,
    ingested,
    make_store,
    market,
)
from tests.index.test_corrections import MIDDLE_MS, correct, of_other_price

POINTS = (END_MS - DAY_MS - WARM_MS) // 900_000 + 1


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store", market())


def compared(
    store_path: Path,
    index_path: Path,
    now_ms: Millis = NOW_MS,
    tamper: Callable[[PointTable], PointTable] | None = None,
) -> StoredPoints:
    """The comparison of an index that is made where it is missing, and tampered with."""

    async def compare() -> StoredPoints:
        with EmbeddedIndex.create_or_open(index_path, COLLECTION) as index:
            if not len(await index.timestamps(SYMBOL)):
                await ingested(store_path, index)
            if tamper:
                await index.upsert(tamper(await stored(index)))
            with MarketStore.open(store_path) as store:
                choices = np.random.default_rng(1)
                return await compare_stored_points(
                    index, store, DEFAULT_RULES, [SYMBOL], now_ms, choices
                )

    return asyncio.run(compare())


def changed(name: str, by: float, rows: slice) -> Callable[[PointTable], PointTable]:
    def tamper(points: PointTable) -> PointTable:
        values = points.values.copy()
        values[COLUMN_ROW[name], rows] += by
        return replace(points, values=values)

    return tamper


def test_points_of_the_data_of_now_are_all_the_same(tmp_path: Path, store_path: Path) -> None:
    report = compared(store_path, tmp_path / "index")
    assert report == StoredPoints(POINTS, report.states_compared)
    assert 9 * 96 < report.states_compared <= 10 * 96


@pytest.mark.parametrize(
    "name",
    [
        *("outcome_24h", "path_high_9"),
        *(pytest.param(name, marks=pytest.mark.soak) for name in ("max_drawdown_1h", "path_low_8")),
    ],
)
def test_every_label_is_compared_of_every_point(
    tmp_path: Path, store_path: Path, name: str
) -> None:
    tamper = changed(name, 1e-6, slice(100, 103))
    report = compared(store_path, tmp_path / "index", tamper=tamper)
    assert report.differing == 3
    first = report.differences[0]
    assert (first.symbol, first.field) == (SYMBOL, name)
    assert first.as_of == iso8601(WARM_MS + 100 * 900_000)
    assert first.stored is not None
    assert first.now is not None
    assert first.stored - first.now == pytest.approx(1e-6)
    assert report.remedy == f"rag-ingest --rebuild --start {first.as_of}"


def test_states_are_compared_by_whole_days(tmp_path: Path, store_path: Path) -> None:
    tamper = changed("rsi_14", 0.01, slice(None))
    report = compared(store_path, tmp_path / "index", tamper=tamper)
    assert report.differing == report.states_compared > 9 * 96
    assert len(report.differences) == 20
    assert {difference.field for difference in report.differences} == {"rsi_14"}


def test_an_outcome_of_a_candle_that_has_not_closed_is_found(
    tmp_path: Path, store_path: Path
) -> None:
    report = compared(store_path, tmp_path / "index", now_ms=END_MS - 5 * MINUTE_MS)
    assert report.differing == 1
    (difference,) = report.differences
    assert difference.as_of == iso8601(END_MS - DAY_MS)
    assert (difference.field, difference.now) == ("outcome_24h", None)


def test_a_correction_is_found_until_it_is_ingested(tmp_path: Path, store_path: Path) -> None:
    path = tmp_path / "index"
    compared(store_path, path)
    correct(store_path, of_other_price(market().intraday, MIDDLE_MS, MIDDLE_MS + HOUR_MS))
    report = compared(store_path, path)
    assert report.differing > 96
    assert report.remedy == "rag-ingest"
    with EmbeddedIndex.create_or_open(path, COLLECTION) as index:
        (again,) = asyncio.run(ingested(store_path, index))
    assert again.remade >= report.differing
    assert compared(store_path, path).differing == 0


def test_points_without_candles_are_counted_and_accuse_nobody(
    tmp_path: Path, store_path: Path
) -> None:
    path = tmp_path / "index"
    compared(store_path, path)
    later = replace(
        market(),
        intraday=market().intraday.between(MIDDLE_MS, None),
        four_hour=market().four_hour.between(None, MIDDLE_MS),
    )
    report = compared(make_store(tmp_path / "later", later), path)
    assert report.without_candles == (MIDDLE_MS - WARM_MS) // 900_000 + 1
    assert report.outcomes_compared == POINTS - report.without_candles
