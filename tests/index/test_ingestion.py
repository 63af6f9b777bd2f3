from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from llm_trader.errors import InvalidInputError, SymbolNotFoundError
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.ingestion import NOT_RESOLVED, IngestReport
from llm_trader.index.points import COLUMN_ROW, STATE
from llm_trader.market.candles import CandleSeries
from llm_trader.market.history import MarketHistory
from llm_trader.market.samples import FundingSeries, OpenInterestSeries
from llm_trader.market.store import MarketStore
from llm_trader.snapshot.builder import build_snapshots
from llm_trader.snapshot.model import OPTIONAL_FIELDS, REFUSALS
from llm_trader.snapshot.outcome import LABELS, label_outcomes
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS, M5, MINUTE_MS
from tests.index.builders import SLOT_MS, START_MS, SYMBOL, same_content, same_points, stored
from tests.index.markets import (
    COLLECTION,
    DAYS,
    END_MS,
    SPACE,
    WARM_MS,
    ingested,
    make_store,
    market,
    write,
)

PER_DAY = DAY_MS // SLOT_MS


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("market") / "store", market())


@pytest.fixture
def index(tmp_path: Path) -> Iterator[EmbeddedIndex]:
    with EmbeddedIndex.create_or_open(tmp_path / "index", COLLECTION) as opened:
        yield opened


def adds_up(report: IngestReport) -> bool:
    """Whether every snapshot that was asked for is accounted for once."""
    refused = sum(report.refused.values())
    told = report.outside_stored_data + report.already_there + report.added + refused
    return report.requested == told and all(count > 0 for count in report.refused.values())


def without_candles(history: MarketHistory, start_ms: int, end_ms: int) -> MarketHistory:
    """A history whose intraday candles lack those that open in a range."""
    candles = history.intraday
    kept = (candles.open_time_ms < start_ms) | (candles.open_time_ms >= end_ms)
    columns = {name: values[kept] for name, values in candles.columns()}
    columns_at = {"open_time_ms": candles.open_time_ms[kept], **columns}
    return MarketHistory(
        history.symbol,
        CandleSeries.validated(candles.timeframe, columns_at),
        history.four_hour,
        history.funding,
        history.open_interest,
        history.open_interest_interval_ms,
    )


async def test_points_are_the_snapshots_outcomes_and_vectors_of_the_plan(
    store_path: Path, index: EmbeddedIndex
) -> None:
    (report,) = await ingested(store_path, index)
    times = np.arange(WARM_MS, END_MS - DAY_MS + 1, SLOT_MS)
    snapshots = build_snapshots(market(), times)
    held = await stored(index)
    assert report.added == len(held) == len(times) == (DAYS - 21) * PER_DAY + 1
    assert held.timestamp_ms.tolist() == times.tolist()
    assert np.array_equal(held.values[: -len(LABELS)], snapshots.scalars)
    outcomes = label_outcomes(market().intraday, times)
    assert np.array_equal(held.values[-len(LABELS) :], outcomes)
    assert np.array_equal(held.vectors[STATE], SPACE.embed(snapshots)[0])


async def test_rebuilding_writes_anew_what_is_there_and_doubles_nothing(
    store_path: Path, index: EmbeddedIndex
) -> None:
    (first,) = await ingested(store_path, index)
    before = await stored(index)
    (again,) = await ingested(store_path, index, rebuild=True)
    after = await stored(index)
    assert (again.added, again.already_there) == (0, first.added)
    assert np.array_equal(after.values, before.values)
    assert np.array_equal(after.vectors[STATE], before.vectors[STATE])
    assert set(before.run.tolist()) == {1}
    assert set(after.run.tolist()) == {2}


async def test_a_second_run_adds_nothing_and_changes_nothing(
    store_path: Path, index: EmbeddedIndex
) -> None:
    (first,) = await ingested(store_path, index)
    before = await stored(index)
    (second,) = await ingested(store_path, index)
    assert second.added == 0
    assert second.already_there == first.added > 0
    assert second.refused == first.refused
    assert adds_up(first)
    assert adds_up(second)
    assert same_points(await stored(index), before)
    assert [run.run for run in (await index.info()).runs] == [1, 2]


async def test_a_later_end_adds_only_what_is_new(store_path: Path, index: EmbeddedIndex) -> None:
    middle = START_MS + 30 * DAY_MS
    (first,) = await ingested(store_path, index, end_ms=middle)
    early = await stored(index)
    (second,) = await ingested(store_path, index)
    held = await stored(index)
    assert first.added == first.requested == second.already_there == len(early)
    assert len(held) == first.added + second.added
    assert same_points(held.take(held.timestamp_ms <= middle), early)
    assert set(held.run[held.timestamp_ms > middle].tolist()) == {2}
    assert adds_up(second)


async def test_an_earlier_start_adds_only_what_is_new(
    store_path: Path, index: EmbeddedIndex, tmp_path: Path
) -> None:
    await ingested(store_path, index, start_ms=START_MS + 29 * DAY_MS + 5 * HOUR_MS)
    (report,) = await ingested(store_path, index)
    assert report.added == 9 * PER_DAY + 5 * 4
    with EmbeddedIndex.create_or_open(tmp_path / "at once", COLLECTION) as whole:
        await ingested(store_path, whole)
        assert same_content(await stored(index), await stored(whole))


async def test_every_refused_snapshot_is_counted_under_its_reason(
    store_path: Path, index: EmbeddedIndex
) -> None:
    before, after = 3, 5
    (report,) = await ingested(
        store_path,
        index,
        start_ms=START_MS - before * SLOT_MS,
        end_ms=END_MS + after * SLOT_MS,
    )
    assert adds_up(report)
    assert report.requested == DAYS * PER_DAY + 1 + before + after
    # The first slot has no closed candle yet; the last candle closes at the end itself.
    assert report.outside_stored_data == before + 1 + after
    # 300 candles of 5m have closed after 25 hours.
    assert report.refused == {
        "fewer than 300 intraday candles before it without a long hole or jump": 25 * 4 - 1,
        "fewer than 120 4h candles before it without a long hole or jump": 19 * PER_DAY - 4,
        NOT_RESOLVED: PER_DAY,
    }


async def test_what_is_not_resolved_yet_is_added_once_the_data_is_there(tmp_path: Path) -> None:
    known_until = START_MS + 33 * DAY_MS + 2 * HOUR_MS
    path = make_store(tmp_path / "store", market().known_at(known_until))
    with EmbeddedIndex.create_or_open(tmp_path / "index", COLLECTION) as index:
        (first,) = await ingested(path, index, end_ms=known_until)
        assert first.refused == {NOT_RESOLVED: PER_DAY}
        assert (await index.timestamps(SYMBOL))[-1] == known_until - DAY_MS
        (again,) = await ingested(path, index, end_ms=known_until)
        assert (again.added, again.refused) == (0, {NOT_RESOLVED: PER_DAY})
        with MarketStore.open(path, write=True) as store:
            write(store, market())
        (later,) = await ingested(path, index, end_ms=known_until)
        assert (later.added, later.refused) == (PER_DAY, {})
        assert all(map(adds_up, (first, again, later)))
        (last,) = await ingested(path, index)
        assert last.refused == {NOT_RESOLVED: PER_DAY}
        with EmbeddedIndex.create_or_open(tmp_path / "at once", COLLECTION) as whole:
            await ingested(path, whole)
            assert same_content(await stored(index), await stored(whole))


async def test_around_a_long_gap_only_snapshots_with_a_warm_past_and_known_outcomes_are_added(
    tmp_path: Path, index: EmbeddedIndex
) -> None:
    start, end = START_MS + 28 * DAY_MS, START_MS + 28 * DAY_MS + 35 * MINUTE_MS
    path = make_store(tmp_path / "store", without_candles(market(), start, end))
    (report,) = await ingested(path, index)
    assert adds_up(report)
    times = np.arange(WARM_MS, END_MS + 1, SLOT_MS)
    resolved = times <= END_MS - DAY_MS
    closes = np.arange(start + M5.ms, end + 1, M5.ms)
    lost = np.isin(times[:, None] + list(HORIZONS.values()), closes).any(axis=1)
    warm_again = (times <= start) | (times >= end + 300 * M5.ms)
    a_week_again = (times <= start) | (times >= end + 7 * DAY_MS + M5.ms)
    no_candle = (times > start) & (times < end + M5.ms)
    expected = times[resolved & ~lost & a_week_again]
    assert (await index.timestamps(SYMBOL)).tolist() == expected.tolist()
    assert report.refused == {
        "the candle at the end of a horizon is missing": int((lost & a_week_again).sum()),
        "no candle closed at its time": int(no_candle.sum()),
        REFUSALS["rsi_7"]: int((~warm_again & ~no_candle).sum()),
        REFUSALS["expected_volatility_15m"]: int((warm_again & ~a_week_again).sum()),
        NOT_RESOLVED: int((~resolved & a_week_again).sum()),
    }


async def test_holes_in_open_interest_and_funding_cost_no_state_and_are_marked(
    tmp_path: Path, store_path: Path, index: EmbeddedIndex
) -> None:
    rng, history = np.random.default_rng(3), market()
    interest = _some_of(history.open_interest, 0.7, rng)
    funding = _some_of(history.funding, 0.95, rng)
    holed = replace(history, open_interest=interest, funding=funding)
    (report,) = await ingested(make_store(tmp_path / "holed", holed), index)
    with EmbeddedIndex.create_or_open(tmp_path / "whole", COLLECTION) as other:
        (complete,) = await ingested(store_path, other)
        whole = await stored(other)
    held = await stored(index)
    assert report.added == complete.added
    assert held.timestamp_ms.tolist() == whole.timestamp_ms.tolist()
    assert (complete.without_open_interest, complete.without_funding) == (0, 0)
    lacking = held.lacking()
    assert report.without_open_interest == np.count_nonzero(lacking & 1) > 0
    assert report.without_funding == np.count_nonzero(lacking & 2) > 0
    assert adds_up(report)
    unknown = np.isnan(held.values)
    optional = [COLUMN_ROW[name] for name in OPTIONAL_FIELDS]
    assert set(np.flatnonzero(unknown.any(axis=1)).tolist()) == set(optional)
    # What is known is what the whole market says, but for means of fewer samples, and for the
    # moment of a missed sample, at which the one before it is still the newest.
    others = np.setdiff1d(np.arange(len(held.values)), optional)
    assert np.array_equal(held.values[others], whole.values[others])
    for name in OPTIONAL_FIELDS:
        known = ~np.isnan(held.column(name))
        assert known.any()
        tolerance = {"oi_delta_pct": 2.0, "funding_rate": 0.001}.get(name, 0.0)
        np.testing.assert_allclose(
            held.column(name)[known], whole.column(name)[known], rtol=0.05, atol=tolerance
        )


Samples = TypeVar("Samples", FundingSeries, OpenInterestSeries)


def _some_of(series: Samples, share: float, rng: np.random.Generator) -> Samples:
    """A random part of the samples."""
    kept = rng.random(len(series)) < share
    columns = {name: values[kept] for name, values in series.columns()}
    return type(series).validated({"time_ms": series.time_ms[kept], **columns})


async def test_after_a_gap_in_the_last_day_only_the_rest_of_it_is_not_known_yet(
    tmp_path: Path, index: EmbeddedIndex
) -> None:
    start = END_MS - 6 * HOUR_MS
    missing_ms = start + 2 * M5.ms  # its candle closes at a quarter-hour
    path = make_store(tmp_path / "store", without_candles(market(), missing_ms, missing_ms + M5.ms))
    (report,) = await ingested(path, index, end_ms=start)
    assert (await index.timestamps(SYMBOL))[-1] == END_MS - DAY_MS
    # What would have been resolved by the missing candle's close can never be; the rest may yet.
    assert report.refused == {
        "the candle at the end of a horizon is missing": 1,
        NOT_RESOLVED: 18 * 4,
    }
    assert adds_up(report)


async def test_an_unknown_symbol_is_refused_before_anything_is_written(
    store_path: Path, index: EmbeddedIndex
) -> None:
    with pytest.raises(SymbolNotFoundError, match="XRPUSDT") as refusal:
        await ingested(store_path, index, (SYMBOL, "XRPUSDT"))
    assert refusal.value.details["available"] == [SYMBOL]
    info = await index.info()
    assert (info.symbols, info.runs) == ([], [])


@pytest.mark.parametrize("interval_ms", [0, 1, 4 * MINUTE_MS, 7 * MINUTE_MS, SLOT_MS + 1])
async def test_an_interval_off_the_candles_is_refused_before_anything_is_written(
    store_path: Path, index: EmbeddedIndex, interval_ms: int
) -> None:
    with pytest.raises(InvalidInputError, match="multiple of the 5m candles"):
        await ingested(store_path, index, interval_ms=interval_ms)
    assert (await index.info()).runs == []


async def test_a_plan_that_ends_before_it_starts_is_refused(
    store_path: Path, index: EmbeddedIndex
) -> None:
    with pytest.raises(InvalidInputError, match="before the start"):
        await ingested(store_path, index, end_ms=WARM_MS - 1)
    assert (await index.info()).runs == []


async def test_candles_of_another_length_only_are_refused(
    tmp_path: Path, index: EmbeddedIndex
) -> None:
    path = tmp_path / "store"
    with MarketStore.open(path, write=True, exchange="bybit") as store:
        candles = market().four_hour
        store.write(SYMBOL, candles, "simulated", written_at_ms=END_MS)
    with pytest.raises(InvalidInputError, match="no 5m candles of BTCUSDT"):
        await ingested(path, index)
    assert (await index.info()).runs == []


async def test_a_plan_outside_the_stored_data_adds_nothing_and_says_so(
    store_path: Path, index: EmbeddedIndex
) -> None:
    (report,) = await ingested(
        store_path, index, start_ms=END_MS + SLOT_MS, end_ms=END_MS + 10 * SLOT_MS
    )
    assert report == IngestReport(
        symbol=SYMBOL,
        requested=10,
        outside_stored_data=10,
        already_there=0,
        added=0,
        refused={},
    )


async def test_the_size_of_batches_makes_no_difference_to_the_last_bit(
    store_path: Path, tmp_path: Path
) -> None:
    held = []
    start = START_MS + 24 * DAY_MS + 17 * HOUR_MS
    for days in (1, 365):
        with EmbeddedIndex.create_or_open(tmp_path / str(days), COLLECTION) as index:
            await ingested(store_path, index, start_ms=start, batch_days=days)
            held.append(await stored(index))
    one_by_one, at_once = held
    assert len(at_once) == 10 * PER_DAY + 7 * 4 + 1
    assert one_by_one.values.tobytes() == at_once.values.tobytes()
    assert one_by_one.vectors[STATE].tobytes() == at_once.vectors[STATE].tobytes()
    assert same_points(one_by_one, at_once)


async def test_progress_goes_from_what_is_there_to_all_there_is(
    store_path: Path, index: EmbeddedIndex
) -> None:
    heard: list[tuple[str, int, int]] = []

    def hear(symbol: str, done: int, total: int) -> None:
        heard.append((symbol, done, total))

    await ingested(store_path, index, end_ms=START_MS + 25 * DAY_MS)
    await ingested(store_path, index, batch_days=2, progress=hear)
    total = (DAYS - 20) * PER_DAY + 1
    assert heard[0] == (SYMBOL, 5 * PER_DAY + 1, total)
    assert heard[-1] == (SYMBOL, total, total)
    done = [d for _, d, _ in heard]
    assert done == sorted(set(done))
    assert len(done) >= 6


async def test_each_symbol_is_ingested_and_told_by_itself(
    tmp_path: Path, index: EmbeddedIndex
) -> None:
    path = make_store(tmp_path / "store", market(), market("ETHUSDT").known_at(END_MS - DAY_MS))
    reports = await ingested(path, index, (SYMBOL, "ETHUSDT"), start_ms=END_MS - 3 * DAY_MS)
    assert [(r.symbol, r.added) for r in reports] == [
        (SYMBOL, 2 * PER_DAY + 1),
        ("ETHUSDT", PER_DAY + 1),
    ]
    assert all(map(adds_up, reports))
    ether = await stored(index, "ETHUSDT")
    assert ether.column("price")[0] != (await stored(index)).column("price")[0]
