"""Real data with holes in every series keeps its states, and each says what it lacks.

The stated tolerance for what is computed across missing candles stands in docs/data.md.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from llm_trader.app.indexes import collection_of
from llm_trader.embedding.state import StateSpace
from llm_trader.index.asof import Window
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.ingestion import IngestPlan, IngestReport, Spaces, ingest
from llm_trader.index.points import PointTable
from llm_trader.market.file_import import import_folder
from llm_trader.market.store import MarketStore
from llm_trader.snapshot.outcome import CHANGES, EXTREMES
from llm_trader.timeframe import HOUR_MS, M5, M15, MAX_TIME_MS

SYMBOL = "BTCUSDT"
NOW_MS = 1_780_000_000_000  # 2026-05-28, after the data
REMOVED = {"candles_5m": 0.001, "funding_8h": 0.05, "open_interest_1h": 0.3}


def some_removed(source: Path, target: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    target.mkdir()
    for name, share in REMOVED.items():
        file = f"bybit_linear_{SYMBOL}_{name}.parquet"
        frame = pl.read_parquet(source / file)
        frame.filter(draw.random(len(frame)) >= share).write_parquet(target / file)


def indexed(folder: Path, place: Path) -> tuple[PointTable, IngestReport]:
    spaces = Spaces(StateSpace(M5))
    with MarketStore.open(place / "store", write=True, exchange="bybit") as store:
        import_folder(folder, store, exchange="bybit", written_at_ms=NOW_MS)
        span = store.first_and_last_ms(SYMBOL, M5)
        assert span is not None
        plan = IngestPlan(start_ms=span[0], end_ms=span[1], interval_ms=M15.ms, batch_days=30)
        collection = collection_of(spaces, "bybit")
        with EmbeddedIndex.create_or_open(place / "index", collection) as index:
            ingesting = ingest(store, index, spaces, [SYMBOL], plan, build_id="t", now_ms=NOW_MS)
            (report,) = asyncio.run(ingesting)
            everything = Window(0, MAX_TIME_MS)
            return asyncio.run(index.scan(SYMBOL, everything)), report


@pytest.fixture(scope="module")
def folders(
    real_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[tuple[PointTable, IngestReport], tuple[PointTable, IngestReport]]:
    place = tmp_path_factory.mktemp("incomplete")
    source = real_data / "bybit_5m_2025-09_2026-03"
    whole, holed = place / "whole", place / "holed"
    whole.mkdir()
    for name in REMOVED:
        file = f"bybit_linear_{SYMBOL}_{name}.parquet"
        (whole / file).symlink_to(source / file)
    some_removed(source, holed, seed=3)
    for name in ("a", "b"):
        (place / name).mkdir()
    return indexed(whole, place / "a"), indexed(holed, place / "b")


def spread(values: np.ndarray) -> float:
    low, high = np.quantile(values, [0.16, 0.84])
    return float(high - low) / 2


@pytest.mark.soak
def test_with_holes_everywhere_nearly_all_states_are_there_marked_and_near_the_true_ones(
    folders: tuple[tuple[PointTable, IngestReport], tuple[PointTable, IngestReport]],
) -> None:
    (truth, _), (found, report) = folders
    assert np.isin(found.timestamp_ms, truth.timestamp_ms).all()
    assert len(found) >= 0.95 * len(truth)
    same = truth.take(np.isin(truth.timestamp_ms, found.timestamp_ms))

    # Each says what it lacks.
    lacks_interest = np.isnan(found.column("oi_delta_pct"))
    lacks_funding = np.isnan(found.column("funding_rate"))
    assert report.without_open_interest == lacks_interest.sum() > 0.5 * len(found)
    assert report.without_funding == lacks_funding.sum() > 0
    across_holes = found.column("missing_candles") > 0
    assert across_holes.mean() > 0.8

    # What depends on no missing row is what the complete set says, to the last bit.
    for name in ("price", *CHANGES, "price_change_24h", "funding_interval_hours"):
        known = np.isfinite(found.column(name))
        assert np.array_equal(found.column(name)[known], same.column(name)[known]), name
    for name in EXTREMES:
        known = np.isfinite(found.column(name))
        assert 0.5 < known.mean() < 1, name
        assert np.array_equal(found.column(name)[known], same.column(name)[known]), name
    # A sample may be a minute late, so at its very time the one before still counts.
    for name, every_ms in (("funding_rate", 8 * HOUR_MS), ("open_interest_latest", HOUR_MS)):
        known = np.isfinite(found.column(name)) & (found.timestamp_ms % every_ms != 0)
        assert np.array_equal(found.column(name)[known], same.column(name)[known]), name

    # What is computed across holes is near it.
    for name in ("rsi_14", "ema_ratio", "atr_14_4h", "realized_volatility_24h", "volume_ratio"):
        differs = np.abs(found.column(name) - same.column(name))
        assert np.quantile(differs, 0.99) <= 0.1 * spread(same.column(name)), name
    ratio = found.column("expected_volatility_24h") / same.column("expected_volatility_24h")
    assert np.quantile(np.abs(np.log(ratio)), 0.99) <= 0.05
