"""Inside one process: snapshots with outcomes, search, growth with the number of points."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import numpy as np

from benchmarks.timing import Figure, in_turn
from benchmarks.workload import (
    DAYS,
    END_MS,
    EVERYTHING,
    SPACE,
    START_MS,
    WARM_UP_DAYS,
    states,
    ten_times,
)
from llm_trader.index.asof import visible_window
from llm_trader.index.embedded import EmbeddedIndex
from llm_trader.index.points import STATE
from llm_trader.index.protocol import SearchQuery
from llm_trader.market.simulation import simulate
from llm_trader.retrieval.retriever import Retriever
from llm_trader.retrieval.search_spec import SearchSpec
from llm_trader.snapshot.builder import build_snapshots
from llm_trader.snapshot.outcome import label_outcomes
from llm_trader.timeframe import DAY_MS, M5, M15

_SYMBOL = "BTCUSDT"
_LOOKBACK_DAYS = 90
_LIMIT = 200


def snapshots() -> list[Figure]:
    """Snapshots with outcomes from 5m candles; the floor reads the same candles once."""
    market = simulate(_SYMBOL, start_ms=START_MS, days=DAYS, seed=1, timeframe=M5)
    times = np.arange(START_MS + WARM_UP_DAYS * DAY_MS, END_MS - DAY_MS, M15.ms)

    def subject() -> None:
        build_snapshots(market, times)
        label_outcomes(market.intraday, times)

    pair = in_turn(subject, lambda: np.diff(np.log(market.intraday.close)), rounds=5, calls=1)
    rate = len(times) / pair.subject_s
    return [
        Figure(
            "snapshots with outcomes, per second and core",
            f"{rate:,.0f} ({pair.ratio:,.0f} x one log-return pass over the candles)",
            "20,000",
            rate >= 20_000,
        )
    ]


def search(index: EmbeddedIndex) -> list[Figure]:
    """Window, filters, top 200, against the bare product and a partial sort of the slice."""
    points = asyncio.run(index.scan(_SYMBOL, EVERYTHING))
    window = visible_window(END_MS, _LOOKBACK_DAYS)
    visible = asyncio.run(index.scan(_SYMBOL, window))
    chosen = itertools.cycle(np.random.default_rng(0).integers(0, len(points), 64))

    def subject() -> None:
        vector = points.vectors[STATE][next(chosen)]
        query = SearchQuery(_SYMBOL, window, vector, _LIMIT)
        # The coroutine never waits, so one step finishes it; an event loop is not what is timed.
        try:
            index.search(query).send(None)
        except StopIteration:
            return

    def floor() -> None:
        cosine = visible.vectors[STATE] @ points.vectors[STATE][next(chosen)]
        top = np.argpartition(cosine, len(cosine) - _LIMIT)[-_LIMIT:]
        top[np.argsort(-cosine[top])]

    pair = in_turn(subject, floor, rounds=40, calls=50)
    return [
        Figure(
            f"search of {len(visible):,} points, against bare NumPy",
            f"{pair.ratio:.2f} x ({pair.subject_s * 1e6:.0f} µs, "
            f"floor {pair.floor_s * 1e6:.0f} µs)",
            "1.5 x",
            pair.ratio <= 1.5,
        )
    ]


def references(index: EmbeddedIndex) -> list[Figure]:
    """A query that is the first of its quarter-hour and is journalled, against any other one."""
    table = states(_SYMBOL, 30)
    rows = np.random.default_rng(0).integers(0, len(table), 200)
    asked = [(table.take(np.array([row])), int(table.as_of_ms[row])) for row in rows]

    def once(with_references: bool) -> None:
        async def all_of_them() -> None:
            retriever = Retriever(index, SPACE)  # which knows none of the windows yet
            for state, at in asked:
                await retriever.query(state, at, SearchSpec(), with_references=with_references)

        asyncio.run(all_of_them())

    pair = in_turn(lambda: once(True), lambda: once(False), rounds=9, calls=1)
    more_ms = (pair.subject_s - pair.floor_s) / len(asked) * 1e3
    return [
        Figure(
            "a query with the references of its forecast, against one without",
            f"{pair.ratio:.2f} x ({more_ms:.2f} ms more)",
            "",
            None,
        )
    ]


def growth(index: EmbeddedIndex, folder: Path) -> list[Figure]:
    """A whole query at ten times the points of the symbol, against the same query at one."""
    table = states(_SYMBOL, 30)
    with ten_times(index, folder / "ten-times", _SYMBOL) as larger:
        small, large = Retriever(index, SPACE), Retriever(larger, SPACE)
        rows = np.random.default_rng(0).integers(0, len(table), 200)
        asked = [(table.take(np.array([row])), int(table.as_of_ms[row])) for row in rows]

        def once(retriever: Retriever) -> None:
            async def all_of_them() -> None:
                for state, at in asked:
                    await retriever.query(state, at, SearchSpec())

            asyncio.run(all_of_them())

        pair = in_turn(lambda: once(large), lambda: once(small), rounds=9, calls=1)
    return [
        Figure(
            "a query at 10 x the points, against 1 x",
            f"{pair.ratio:.2f} x",
            "1.3 x",
            pair.ratio <= 1.3,
        )
    ]
