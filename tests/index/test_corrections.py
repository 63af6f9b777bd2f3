"""Corrected market data reaches an index: exactly the points that read it are made again."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.ingestion import NOT_RESOLVED, IngestReport
from llm_trader.index.points import COLUMN_ROW, PointTable
from llm_trader.market.candles import CandleSeries
from llm_trader.market.history import MarketHistory
from llm_trader.market.resampling import resample
from llm_trader.market.series_changes import DataMark
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import DAY_MS, H4, HOUR_MS, M5, M15, MINUTE_MS, Millis
from tests.index.builders import SLOT_MS, START_MS, SYMBOL, same_content, stored
from tests.index.conftest import FreshIndex
from tests.index.markets import (
    COLLECTION,
    END_MS,
    WARM_MS,
    ingested,
    ingestion_program,
    make_store,
    market,
    write,
)
from tests.market.processes import hear, running, tell

MIDDLE_MS: Millis = START_MS + 28 * DAY_MS + 7 * HOUR_MS


def of_other_price(candles: CandleSeries, start_ms: Millis, end_ms: Millis) -> CandleSeries:
    """The candles that open in a range, 1 % higher."""
    part = candles.between(start_ms, end_ms)
    columns = {name: column * (1 if name == "volume" else 1.01) for name, column in part.columns()}
    return CandleSeries.validated(part.timeframe, {"open_time_ms": part.open_time_ms, **columns})


def correct(path: Path, *series: CandleSeries) -> None:
    with MarketStore.open(path, write=True) as store:
        for part in series:
            store.write(SYMBOL, part, "correction", written_at_ms=END_MS + HOUR_MS)


def without(history: MarketHistory, start_ms: Millis, end_ms: Millis) -> MarketHistory:
    """Without the intraday candles that open in a range."""
    candles = history.intraday
    parts = candles.between(None, start_ms), candles.between(end_ms, None)
    times = np.concatenate([part.open_time_ms for part in parts])
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name, _ in candles.columns()
    }
    kept = CandleSeries.validated(candles.timeframe, {"open_time_ms": times, **columns})
    return replace(history, intraday=kept)


async def made_of(store_path: Path, folder: Path) -> PointTable:
    """The points of a new index of a store."""
    with EmbeddedIndex.create_or_open(folder, COLLECTION) as index:
        await ingested(store_path, index)
        return await stored(index)


def differing(one: PointTable, other: PointTable) -> set[int]:
    """The times of points that differ in any field; both have the same times."""
    assert one.timestamp_ms.tolist() == other.timestamp_ms.tolist()
    return set(one.timestamp_ms[(one.values != other.values).any(axis=0)].tolist())


def remade_times(points: PointTable, run: int) -> list[int]:
    return points.timestamp_ms[points.run == run].tolist()


def grid(first_ms: Millis, last_ms: Millis) -> list[int]:
    """The quarter-hours of a range that the index holds, both ends included."""
    first_ms, last_ms = max(first_ms, WARM_MS), min(last_ms, END_MS - DAY_MS)
    return list(range(first_ms + -first_ms % SLOT_MS, last_ms + 1, SLOT_MS))


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store", market())


@pytest.fixture
def index(tmp_path: Path) -> Iterator[EmbeddedIndex]:
    with EmbeddedIndex.create_or_open(tmp_path / "index", COLLECTION) as opened:
        yield opened


async def test_after_a_corrected_candle_exactly_the_points_that_read_it_are_made_again(
    tmp_path: Path, store_path: Path, index: EmbeddedIndex
) -> None:
    await ingested(store_path, index)
    before = await stored(index)
    closed_ms = MIDDLE_MS + SLOT_MS
    correct(store_path, of_other_price(market().intraday, closed_ms - M5.ms, closed_ms))
    (report,) = await ingested(store_path, index)
    after = await stored(index)

    # From the one whose outcome ends with the candle to the last whose week of returns has it.
    expected = grid(closed_ms - DAY_MS, closed_ms + 7 * DAY_MS)
    assert remade_times(after, 2) == expected
    assert (report.remade, report.removed, report.added) == (len(expected), {}, 0)
    whole = await made_of(store_path, tmp_path / "whole")
    assert same_content(after, whole)
    changed = differing(before, after)
    assert changed <= set(expected)
    assert {expected[0], expected[-1]} <= changed


async def test_clean_data_and_candles_behind_the_end_make_nothing_again(
    tmp_path: Path, index: EmbeddedIndex
) -> None:
    whole = market()
    early = MarketHistory(
        SYMBOL,
        whole.intraday.between(None, MIDDLE_MS),
        whole.four_hour.between(None, MIDDLE_MS),
        whole.funding.between(None, MIDDLE_MS),
        whole.open_interest.between(None, MIDDLE_MS),
        whole.open_interest_interval_ms,
    )
    path = make_store(tmp_path / "store", early)
    reports = await ingested(path, index)
    for _ in range(2):
        with MarketStore.open(path, write=True) as store:
            write(store, whole)
        reports += await ingested(path, index)
    assert [report.remade for report in reports] == [0, 0, 0]
    assert [report.removed for report in reports] == [{}, {}, {}]
    assert reports[1].added > 0 == reports[2].added
    held = await stored(index)
    assert same_content(held, await made_of(path, tmp_path / "whole"))
    assert set(held.run.tolist()) == {1, 2}


async def test_a_corrected_4h_candle_reaches_the_points_of_the_next_60_days(
    tmp_path: Path, store_path: Path, index: EmbeddedIndex
) -> None:
    await ingested(store_path, index)
    opened_ms = MIDDLE_MS - MIDDLE_MS % H4.ms
    correct(store_path, of_other_price(market().four_hour, opened_ms, opened_ms + H4.ms))
    (report,) = await ingested(store_path, index)
    after = await stored(index)
    expected = grid(opened_ms + H4.ms, END_MS)
    assert remade_times(after, 2) == expected
    assert report.remade == len(expected)
    assert same_content(after, await made_of(store_path, tmp_path / "whole"))


async def test_corrected_funding_and_open_interest_reach_the_points_that_look_them_up(
    tmp_path: Path, store_path: Path, index: EmbeddedIndex
) -> None:
    await ingested(store_path, index)
    before = await stored(index)
    settled = market().funding.between(MIDDLE_MS, None)
    first_ms, next_ms = settled.time_ms[:2].tolist()
    part = settled.between(first_ms, next_ms)
    with MarketStore.open(store_path, write=True) as store:
        store.write(SYMBOL, replace(part, rate=part.rate + 1e-5), "c", written_at_ms=END_MS)
    (report,) = await ingested(store_path, index)
    after = await stored(index)
    expected = grid(first_ms, next_ms - 1)
    assert remade_times(after, 2) == expected
    assert report.remade == len(expected) == len(differing(before, after))

    sample = market().open_interest.between(MIDDLE_MS, MIDDLE_MS + HOUR_MS)
    sampled_ms = int(sample.time_ms[0])
    higher = replace(sample, open_interest=sample.open_interest * 1.01)
    with MarketStore.open(store_path, write=True) as store:
        store.write(SYMBOL, higher, "c", written_at_ms=END_MS)
    await ingested(store_path, index)
    last = await stored(index)
    assert remade_times(last, 3) == grid(sampled_ms, sampled_ms + DAY_MS - 1)
    assert set(remade_times(last, 3)) == differing(after, last)
    assert same_content(last, await made_of(store_path, tmp_path / "whole"))


async def test_a_hole_that_is_filled_brings_states_and_mends_those_around_it(
    tmp_path: Path, index: EmbeddedIndex
) -> None:
    hole = MIDDLE_MS, MIDDLE_MS + 2 * HOUR_MS
    path = make_store(tmp_path / "store", without(market(), *hole))
    (first,) = await ingested(path, index)
    with MarketStore.open(path, write=True) as store:
        write(store, market())
    (second,) = await ingested(path, index)
    assert second.added > 0
    assert second.removed == {}
    after = await stored(index)
    assert same_content(after, await made_of(path, tmp_path / "whole"))
    assert first.added + second.added == len(after)


async def test_funding_that_comes_late_reaches_states_that_were_made_without_it(
    tmp_path: Path, index: EmbeddedIndex
) -> None:
    """Its settlement was stamped on time, but was not there yet: the one before still counted."""
    whole = market()
    settled_ms = int(whole.funding.between(MIDDLE_MS, None).time_ms[0])
    late = replace(whole, funding=whole.funding.between(None, settled_ms))
    path = make_store(tmp_path / "store", late)
    await ingested(path, index)
    before = await stored(index)
    affected = before.timestamp_ms >= settled_ms
    row = COLUMN_ROW["funding_rate"]
    assert np.isnan(before.values[row, affected]).sum() == affected.sum() - 1
    with MarketStore.open(path, write=True) as store:
        write(store, whole)
    (report,) = await ingested(path, index)
    assert report.remade == affected.sum()
    after = await stored(index)
    assert same_content(after, await made_of(path, tmp_path / "whole"))
    assert (after.values[row, affected] != before.values[row, affected]).all()


async def test_points_outside_the_range_of_the_run_are_made_again_too(
    tmp_path: Path, store_path: Path, index: EmbeddedIndex
) -> None:
    await ingested(store_path, index)
    correct(store_path, of_other_price(market().intraday, MIDDLE_MS, MIDDLE_MS + HOUR_MS))
    # Off the grid of the points, too.
    plan = {"start_ms": END_MS - HOUR_MS, "end_ms": END_MS, "interval_ms": HOUR_MS}
    (report,) = await ingested(store_path, index, **plan)
    assert report.remade > 0
    assert report.refused == {NOT_RESOLVED: 2}
    assert same_content(await stored(index), await made_of(store_path, tmp_path / "whole"))
    (again,) = await ingested(store_path, index)
    assert (again.remade, again.added) == (0, 0)


async def test_what_can_no_longer_be_made_is_removed_with_its_reason(
    tmp_path: Path, store_path: Path, index: EmbeddedIndex
) -> None:
    """Without any volume in a day, the ratio of volumes is unknown."""
    (first,) = await ingested(store_path, index)
    silent = market().intraday.between(MIDDLE_MS, MIDDLE_MS + 25 * HOUR_MS)
    correct(store_path, replace(silent, volume=np.zeros(len(silent))))
    (second,) = await ingested(store_path, index)
    removed = sum(second.removed.values())
    after = await stored(index)
    assert len(after) == first.added - removed
    gone = grid(MIDDLE_MS + DAY_MS, MIDDLE_MS + 25 * HOUR_MS)
    assert not set(gone) & set(after.timestamp_ms.tolist())
    assert removed == len(gone)
    assert same_content(after, await made_of(store_path, tmp_path / "whole"))
    correct(store_path, silent)
    (third,) = await ingested(store_path, index)
    assert third.added == removed
    assert same_content(await stored(index), await made_of(store_path, tmp_path / "again"))


async def test_no_outcome_is_taken_from_a_candle_that_closes_after_the_clock(
    store_path: Path, index: EmbeddedIndex
) -> None:
    now_ms = END_MS - 2 * MINUTE_MS  # the newest stored candle is in progress
    (early,) = await ingested(store_path, index, now_ms=now_ms)
    times = await index.timestamps(SYMBOL)
    assert times[-1] == END_MS - SLOT_MS - DAY_MS
    assert early.refused == {NOT_RESOLVED: DAY_MS // SLOT_MS + 1}
    (later,) = await ingested(store_path, index, now_ms=END_MS)
    assert (later.added, later.remade) == (1, 0)


async def test_another_symbol_s_correction_and_other_timeframes_change_nothing(
    tmp_path: Path, index: EmbeddedIndex
) -> None:
    path = make_store(tmp_path / "store", market(), market("ETHUSDT"))
    await ingested(path, index, ("BTCUSDT", "ETHUSDT"))
    quarters = resample(market().intraday, M15)
    correct(path, quarters)
    correct(path, of_other_price(quarters, MIDDLE_MS, MIDDLE_MS + HOUR_MS))
    with MarketStore.open(path, write=True) as store:
        other = of_other_price(market("ETHUSDT").intraday, MIDDLE_MS, MIDDLE_MS + HOUR_MS)
        store.write("ETHUSDT", other, "correction", written_at_ms=END_MS)
    (report,) = await ingested(path, index)
    assert report.remade == 0
    (report,) = await ingested(path, index, ("ETHUSDT",))
    assert report.remade > 0


async def test_an_index_without_a_mark_is_brought_up_to_all_recorded_corrections(
    tmp_path: Path, store_path: Path
) -> None:
    """As versions before this one have made them."""
    with EmbeddedIndex.create_or_open(tmp_path / "index", COLLECTION) as index:
        await ingested(store_path, index)
        points = await stored(index)
    with EmbeddedIndex.create_or_open(tmp_path / "former", COLLECTION) as former:
        await former.begin_run("former", "bybit", "2026-01-01T00:00:00Z")
        await former.upsert(points)
        correct(store_path, of_other_price(market().intraday, MIDDLE_MS, MIDDLE_MS + HOUR_MS))
        (report,) = await ingested(store_path, former)
        assert report.remade > 0
        after = await stored(former)
        (again,) = await ingested(store_path, former)
        assert again.remade == 0
    assert same_content(after, await made_of(store_path, tmp_path / "whole"))


async def test_a_first_ingestion_that_was_killed_does_not_make_its_points_twice(
    store_path: Path, index: EmbeddedIndex
) -> None:
    """The store has corrections that are older than the index."""
    correct(store_path, of_other_price(market().intraday, MIDDLE_MS, MIDDLE_MS + HOUR_MS))

    class KilledError(Exception):
        pass

    def kill(symbol: str, done: int, total: int) -> None:
        if done > total / 2:
            raise KilledError

    with pytest.raises(KilledError):
        await ingested(store_path, index, batch_days=1, progress=kill)
    (report,) = await ingested(store_path, index)
    assert (report.remade, report.removed) == (0, {})
    assert report.already_there > 0 < report.added


async def test_every_backend_takes_corrections_over(
    tmp_path: Path, store_path: Path, fresh_index: FreshIndex
) -> None:
    plan = {"start_ms": MIDDLE_MS, "end_ms": MIDDLE_MS + 12 * HOUR_MS}
    async with fresh_index(COLLECTION) as index:
        (first,) = await ingested(store_path, index, **plan)
        silent = market().intraday.between(MIDDLE_MS - 19 * HOUR_MS, MIDDLE_MS + 6 * HOUR_MS)
        correct(store_path, replace(silent, volume=np.zeros(len(silent))))
        (second,) = await ingested(store_path, index, **plan)
        removed = sum(second.removed.values())
        assert removed == len(grid(MIDDLE_MS + 5 * HOUR_MS, MIDDLE_MS + 6 * HOUR_MS))
        assert second.remade == first.added - removed
        held = await stored(index)
        (third,) = await ingested(store_path, index, **plan)
        assert (third.remade, third.removed, third.added) == (0, {}, 0)
    with EmbeddedIndex.create_or_open(tmp_path / "whole", COLLECTION) as whole:
        await ingested(store_path, whole, **plan)
        expected = await stored(whole)
    assert held.timestamp_ms.tolist() == expected.timestamp_ms.tolist()
    assert np.array_equal(held.values, expected.values)


INGESTION = ingestion_program("remade")


@pytest.mark.soak
async def test_a_killed_ingestion_takes_the_corrections_over_again(
    tmp_path: Path, store_path: Path
) -> None:
    path = tmp_path / "index"
    with EmbeddedIndex.create_or_open(path, COLLECTION) as index:
        await ingested(store_path, index)
        marked = await index.data_mark(SYMBOL)
    correct(store_path, of_other_price(market().intraday, MIDDLE_MS, MIDDLE_MS + HOUR_MS))
    expected = grid(MIDDLE_MS + M5.ms - DAY_MS, MIDDLE_MS + HOUR_MS + 7 * DAY_MS)
    remade = 0
    for batches, delay in ((0, 0.01), (2, 0.03), (4, 0.0)):
        with running(INGESTION, store_path, path) as process:
            for _ in range(batches + 1):
                assert hear(process).startswith(SYMBOL)
                tell(process)
            time.sleep(delay)  # noqa: ASYNC251
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        with EmbeddedIndex.open(path) as reader:
            held = await stored(reader)
            remade = max(remade, int((held.run > 1).sum()))
            assert await reader.data_mark(SYMBOL) == marked
    assert 0 < remade < len(expected)
    with running(INGESTION, store_path, path) as process:
        lines = process.communicate()[0].splitlines()
        assert process.returncode == 0
    assert lines[-1] == f"remade {len(expected)}"
    whole = await made_of(store_path, tmp_path / "whole")
    with EmbeddedIndex.open(path) as reader:
        assert same_content(await stored(reader), whole)
        mark = await reader.data_mark(SYMBOL)
    assert isinstance(mark, DataMark)
    assert mark != marked


def test_a_report_of_clean_data_says_so() -> None:
    counts = {"requested": 1, "outside_stored_data": 0, "already_there": 1, "added": 0}
    report = IngestReport(symbol=SYMBOL, refused={}, **counts)
    assert (report.remade, report.removed) == (0, {})
