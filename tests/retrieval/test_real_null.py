"""On real data, with outcomes cut loose from the states: what the verdict then still claims."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llm_trader.embedding.state import StateSpace
from llm_trader.index.ingestion import Spaces, make_points
from llm_trader.index.points import COLUMN_ROW, PointTable
from llm_trader.market.candles import CandleSeries
from llm_trader.market.file_import import import_folder
from llm_trader.market.history import MarketHistory
from llm_trader.market.store import MarketStore
from llm_trader.retrieval.calibration import LoadedCalibration
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.snapshot.builder import build_snapshots
from llm_trader.snapshot.model import EXPECTED_VOLATILITY
from llm_trader.snapshot.outcome import LABELS
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, HORIZONS, HOUR_MS, M5, M15, Millis, parse_rfc3339
from tests.retrieval.builders import index_of
from tests.retrieval.calibrations import calibration

SPACE = StateSpace(M5)
START_MS = parse_rfc3339("2025-10-20T00:00:00Z")
END_MS = parse_rfc3339("2026-03-31T00:00:00Z")


@pytest.fixture(scope="module")
def history(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> MarketHistory:
    """BTC, winter 2025/26."""
    folder = real_data / "bybit_5m_2025-09_2026-03"
    path = tmp_path_factory.mktemp("store")
    with MarketStore.open(path, write=True, exchange="bybit") as store:
        for file in sorted(folder.glob("*_BTCUSDT_*")):
            import_folder(file, store, exchange="bybit", written_at_ms=END_MS + DAY_MS)
        return store.stored_history("BTCUSDT", M5).decode()


@pytest.fixture(scope="module")
def market(history: MarketHistory) -> tuple[PointTable, SnapshotTable]:
    """The labelled points, and the states of the last weeks to ask about."""
    return labelled(history)


def labelled(history: MarketHistory) -> tuple[PointTable, SnapshotTable]:
    times = np.arange(START_MS, END_MS + 1, M15.ms, dtype=np.int64)
    points, refused = make_points(history, Spaces(SPACE), times, END_MS + DAY_MS, 1)
    assert not refused
    return points, build_snapshots(history, times[-60 * 96 :])


def shifted(points: PointTable, days: int) -> PointTable:
    """With outcomes of another time, cut loose from the states."""
    if not days:
        return points
    # With their expected volatilities: those of other times would make the model's errors new.
    rows = [COLUMN_ROW[name] for name in (*LABELS, *EXPECTED_VOLATILITY.values())]
    values = points.values.copy()
    values[rows] = np.roll(values[rows], days * 96 + 13, axis=1)
    return replace(points, values=values)


@pytest.mark.parametrize(
    ("shift_days", "queries"),
    [(20, 60), *(pytest.param(days, 250, marks=pytest.mark.soak) for days in (7, 20, 35))],
)
async def test_with_outcomes_shifted_in_time_the_verdict_claims_no_more_than_chance(
    market: tuple[PointTable, SnapshotTable], shift_days: int, queries: int
) -> None:
    points, states = market
    verdicts: Counter[tuple[str, bool]] = Counter()
    async with index_of(shifted(points, shift_days)) as index:
        retriever = Retriever(index, SPACE)
        for row in np.random.default_rng(shift_days).integers(0, len(states), queries):
            state = states.take(np.array([row]))
            answer = await retriever.query(state, int(state.as_of_ms[0]), SearchSpec())
            beyond_1_in_500 = "fewer than 1 in 500" in answer.evidence.reason
            verdicts[answer.evidence.verdict, beyond_1_in_500] += 1
    assert verdicts["weak", True] <= 0.01 * queries
    assert verdicts["weak", True] + verdicts["weak", False] <= 0.12 * queries
    assert verdicts["informative", True] == 0  # without a calibration


def multiplied(history: MarketHistory, at_ms: Millis, factor: float, hours: float) -> MarketHistory:
    """Prices that rise to `factor` times as much within some hours, or at once."""

    def candles(series: CandleSeries) -> CandleSeries:
        if hours:
            ends = (series.open_time_ms + series.timeframe.ms - at_ms) / (hours * HOUR_MS)
            risen = factor ** np.clip(ends, 0, 1)
            before = np.append(1.0, risen[:-1])
        else:
            risen = before = np.where(series.open_time_ms >= at_ms, factor, 1.0)
        columns = {"open": series.open * before, "close": series.close * risen}
        columns["high"] = np.maximum(series.high * risen, columns["open"])
        columns["low"] = np.minimum(series.low * before, columns["close"])
        return replace(series, **columns)

    return replace(
        history, intraday=candles(history.intraday), four_hour=candles(history.four_hour)
    )


@pytest.mark.parametrize(
    ("factor", "hours"), [(1000.0, 0), (10.0, 0), (0.1, 0), (1e-5, 0), (2.0, 4), (3.0, 8)]
)
@pytest.mark.parametrize("days_before", [5, 30, 75])
@pytest.mark.soak
@pytest.mark.parametrize("shift_days", [0, 20])
async def test_one_jump_in_the_past_makes_no_answer_informative(
    history: MarketHistory, factor: float, hours: float, days_before: int, shift_days: int
) -> None:
    first_query_ms = END_MS - 60 * DAY_MS
    jumped = multiplied(history, first_query_ms - days_before * DAY_MS, factor, hours)
    points, states = labelled(jumped)
    points = shifted(points, shift_days)
    # The most permissive calibration: such forecasts were better at every horizon.
    loaded = LoadedCalibration(calibration(*HORIZONS), 10_000)
    verdicts: Counter[str] = Counter()
    async with index_of(points) as index:
        retriever = Retriever(index, SPACE, calibration=loaded)
        for row in np.random.default_rng(0).integers(0, 40 * 96, 220):
            state = states.take(np.array([row]))
            answer = await retriever.query(state, int(state.as_of_ms[0]), SearchSpec())
            assert answer.evidence.calibrated, answer.warnings
            verdicts[answer.evidence.verdict] += 1
    # Of the real market without a jump 4 of the 220 are marked.
    assert verdicts["informative"] <= (0.01 if shift_days else 0.05) * 220
