"""Which served forecasts are written down with the references that they are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_trader.rpc.client import RpcClient
from llm_trader.timeframe import DAY_MS
from tests.cli.corridor import AT_MS, QUARTER_MS, SYMBOL, SYMBOLS, Corridor
from tests.forecasts.builders import all_lines
from tests.serving.metrics.scraping import Clock, running


@pytest.mark.parametrize("together", [False, True])
async def test_the_first_forecast_of_each_symbol_and_quarter_hour_has_the_references(
    corridor: Corridor, tmp_path: Path, together: bool
) -> None:
    moments = [
        {"symbol": symbol, "timestamp": AT_MS - replayed_ms}
        for symbol in SYMBOLS
        for replayed_ms in (0, DAY_MS)
    ]
    clock = Clock(AT_MS)
    async with (
        running(corridor, clock, forecasts__folder=tmp_path) as server,
        await RpcClient.connect(*server.address) as client,
    ):
        if together:
            await client.call("rag.query_batch", {"queries": moments}, dict[str, Any])
        for moment in moments:
            await client.call("rag.query_patterns", moment, dict[str, Any])
        other = {"symbol": SYMBOL, "timestamp": AT_MS, "query_config": {"lookback_days": 5}}
        await client.call("rag.query_patterns", other, dict[str, Any])
        clock.now_ms += QUARTER_MS
        later = {"symbol": SYMBOL, "timestamp": clock.now_ms}
        await client.call("rag.query_patterns", later, dict[str, Any])
    lines = [line for line in all_lines(tmp_path) if line.horizons]
    first = [(symbol, AT_MS) for symbol in SYMBOLS] + [(SYMBOL, clock.now_ms)]
    # The query with another lookback has numbers of its own, which are not scored.
    assert [(line.symbol, line.as_of_ms) for line in lines] == [*first[:-1], first[0], first[-1]]
    for line, has_them in zip(lines, (True, True, False, True), strict=True):
        for numbers in line.horizons.values():
            assert [numbers.rescaled is not None, numbers.random is not None] == [has_them] * 2
