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
from llm_trader.market.file_import import import_folder
from llm_trader.market.store import MarketStore
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.snapshot.builder import build_snapshots
from llm_trader.snapshot.model import EXPECTED_VOLATILITY
from llm_trader.snapshot.outcome import OUTCOMES
from llm_trader.snapshot.table import SnapshotTable
from llm_trader.timeframe import DAY_MS, M5, M15, parse_rfc3339
from tests.retrieval.builders import index_of

SPACE = StateSpace(M5)
START_MS = parse_rfc3339("2025-10-20T00:00:00Z")
END_MS = parse_rfc3339("2026-03-31T00:00:00Z")
QUERIES = 250


@pytest.fixture(scope="module")
def market(
    real_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[PointTable, SnapshotTable]:
    """The labelled points of BTC, and its states of the last weeks to ask about."""
    folder = real_data / "bybit_5m_2025-09_2026-03"
    path = tmp_path_factory.mktemp("store")
    with MarketStore.open(path, write=True, exchange="bybit") as store:
        for file in sorted(folder.glob("*_BTCUSDT_*")):
            import_folder(file, store, exchange="bybit", written_at_ms=END_MS)
        history = store.stored_history("BTCUSDT", M5).decode()
    times = np.arange(START_MS, END_MS + 1, M15.ms, dtype=np.int64)
    points, refused = make_points(history, Spaces(SPACE), times, END_MS + DAY_MS, 1)
    assert not refused
    return points, build_snapshots(history, times[-60 * 96 :])


@pytest.mark.parametrize("shift_days", [7, 20, 35])
async def test_with_outcomes_shifted_in_time_the_verdict_claims_no_more_than_chance(
    market: tuple[PointTable, SnapshotTable], shift_days: int
) -> None:
    points, states = market
    # With their expected volatilities: those of other times would make the model's errors new.
    rows = [COLUMN_ROW[name] for name in (*OUTCOMES, *EXPECTED_VOLATILITY.values())]
    values = points.values.copy()
    values[rows] = np.roll(values[rows], shift_days * 96 + 13, axis=1)
    verdicts: Counter[tuple[str, bool]] = Counter()
    async with index_of(replace(points, values=values)) as index:
        retriever = Retriever(index, SPACE)
        for row in np.random.default_rng(shift_days).integers(0, len(states), QUERIES):
            state = states.take(np.array([row]))
            answer = await retriever.query(state, int(state.as_of_ms[0]), SearchSpec())
            beyond_1_in_500 = "fewer than 1 in 500" in answer.evidence.reason
            verdicts[answer.evidence.verdict, beyond_1_in_500] += 1
    assert verdicts["weak", True] <= 0.01 * QUERIES
    assert verdicts["weak", True] + verdicts["weak", False] <= 0.12 * QUERIES
    assert verdicts["informative", True] == 0  # without a calibration
