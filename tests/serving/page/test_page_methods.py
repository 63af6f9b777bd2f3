"""The methods that the page needs beside `rag.*`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_trader.market.absent_spans import Span
from llm_trader.market.refused_rows import RefusedSpan
from llm_trader.market.store import MarketStore
from llm_trader.market.stored_series import candles_of
from llm_trader.rpc.client import RpcError
from llm_trader.serving.page.evaluations import list_evaluations
from llm_trader.timeframe import DAY_MS, HOUR_MS, M5
from tests.cli.corridor import AT_MS, START_MS, SYMBOL, Corridor, answering


async def test_features_sum_up_to_the_similarity_of_a_match(corridor: Corridor) -> None:
    moment = {"symbol": SYMBOL, "timestamp": AT_MS}
    async with answering(corridor) as client:
        matches = (await client.call("rag.query_patterns", moment, dict[str, Any]))["matches"]
        others = [match["timestamp"] for match in matches]
        found = await client.call(
            "rag.compare_states", {**moment, "others": others}, dict[str, Any]
        )
    shares = [feature["share"] for feature in found["features"]]
    assert sum(shares) == pytest.approx(1)
    for match, state in zip(matches, found["states"], strict=True):
        alike = state["similarities"]
        known = [
            (share, value) for share, value in zip(shares, alike, strict=True) if value is not None
        ]
        mean = sum(s * v for s, v in known) / sum(s for s, _ in known)
        assert mean == pytest.approx(match["similarity"], abs=1e-4)
        assert state["expected_volatility_pct"]["24h"] > 0


async def test_a_state_after_the_time_of_the_question_is_refused(corridor: Corridor) -> None:
    params = {"symbol": SYMBOL, "timestamp": AT_MS, "others": [AT_MS - DAY_MS, AT_MS + 1]}
    async with answering(corridor) as client:
        with pytest.raises(RpcError, match=r"others\[1\]: must not be after timestamp"):
            await client.call("rag.compare_states", params, dict[str, Any])


HOLE_MS = START_MS + 2 * HOUR_MS
JUMP_MS = START_MS + 20 * HOUR_MS


def write_incomplete(folder: Path, corridor: Corridor) -> None:
    """A day of candles with an hour missing, one of them refused, and prices that jump tenfold."""
    day = corridor.histories[SYMBOL].intraday.between(START_MS, START_MS + DAY_MS)
    late = day.between(JUMP_MS, None)
    prices = {name: 10 * getattr(late, name) for name in ("open", "high", "low", "close")}
    parts = (
        day.between(None, HOLE_MS),
        day.between(HOLE_MS + HOUR_MS, JUMP_MS),
        replace(late, **prices),
    )
    with MarketStore.open(folder, write=True, exchange="simulated") as store:
        for part in parts:
            store.write(SYMBOL, part, "simulated", written_at_ms=START_MS + DAY_MS)
        refused = RefusedSpan(HOLE_MS, HOLE_MS + M5.ms, "high below low")
        answered = Span(HOLE_MS, HOLE_MS + HOUR_MS)
        store.note_answer(candles_of(SYMBOL, M5), answered, [], [refused])


async def test_the_report_of_series_counts_what_the_store_lacks(
    corridor: Corridor, tmp_path: Path
) -> None:
    write_incomplete(tmp_path, corridor)
    async with answering(corridor, market__store=tmp_path) as client:
        found = await client.call("rag.series_report", {"symbol": SYMBOL}, dict[str, Any])
        with pytest.raises(RpcError, match="NONEUSDT"):
            await client.call("rag.series_report", {"symbol": "NONEUSDT"}, dict[str, Any])
    (series,) = found["series"]
    assert (series["series"], series["gaps"], series["missing"]) == ("candles_5m", 1, 12)
    assert (series["first"], series["last"]) == (START_MS, START_MS + DAY_MS - M5.ms)
    (gap,) = series["newest_gaps"]
    assert (gap["start"], gap["end"]) == (HOLE_MS, HOLE_MS + HOUR_MS)
    (refused,) = series["newest_refused"]
    assert (refused["start"], refused["reason"], series["refused"]) == (
        HOLE_MS,
        "high below low",
        1,
    )
    (jump,) = found["jumps"]
    assert (jump["time"], jump["timeframe"], found["unaccepted_jumps"]) == (JUMP_MS, "5m", 1)
    assert jump["ratio"] == pytest.approx(10, rel=0.05)
    assert jump["after"] == pytest.approx(jump["ratio"] * jump["before"])


def test_evaluations_are_listed_newest_first_without_earlier_runs(tmp_path: Path) -> None:
    for name, created in (("", "2026-01-01T00:00:00Z"), ("compare", "2026-02-01T00:00:00Z")):
        write_metrics(tmp_path / name, created)
    write_metrics(tmp_path / "earlier" / "2025-12-01", "2025-12-01T00:00:00Z")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "metrics.json").write_text("{")
    found = list_evaluations(tmp_path).evaluations
    assert [entry.name for entry in found] == ["compare", ".", "broken"]
    assert found[0].readings == ["Nothing beyond chance."]
    assert found[-1].problem is not None
    assert list_evaluations(tmp_path / "none").evaluations == []


def write_metrics(folder: Path, created_at: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {
        "command": "evaluate",
        "created_at": created_at,
        "readings": ["Nothing beyond chance."],
        "seconds": 1.0,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
