"""What a picture of an answer needs beside it: the candles before, the paths after its matches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from llm_trader.rpc.client import RpcClient, RpcError
from llm_trader.serving.series import CandlesResult
from llm_trader.serving.wire import QueryPatternsResult, StatsResult
from llm_trader.timeframe import DAY_MS, MINUTE_MS, Millis, Timeframe

STEP_MS: Millis = 15 * MINUTE_MS
_SHOWN_MS = 2 * DAY_MS
_PATHS = 8


@dataclass(frozen=True, slots=True)
class QuarterHour:
    open_time_ms: Millis
    open: float
    high: float
    low: float
    close: float


@dataclass(frozen=True, slots=True)
class AnswerSeries:
    """`paths` are % changes at each quarter-hour of 24 hours, from 0 on, one path for each of the
    first matches; NaN where a candle is missing.
    """

    candles: Sequence[QuarterHour]
    paths: Sequence[Sequence[float]]


async def answer_series(
    client: RpcClient, symbol: str, answer: QueryPatternsResult
) -> AnswerSeries | None:
    """None from a server that has no candles of it. Nothing is later than the answer's time."""
    try:
        stats = await client.call("rag.stats", None, StatsResult)
        timeframe = Timeframe.parse(str(stats.index.collection.intraday))
        as_of_ms = timeframe.floor(answer.metadata.as_of)
        before = await _candles(client, symbol, timeframe, as_of_ms - _SHOWN_MS, as_of_ms)
        paths = []
        for match in answer.matches[:_PATHS]:
            start_ms = match.timestamp
            after = await _candles(
                client, symbol, timeframe, start_ms - timeframe.ms, start_ms + DAY_MS
            )
            paths.append(_path(after, start_ms, timeframe.ms))
    except RpcError:  # no store, no such symbol in it, or a key that may not read it
        return None
    return AnswerSeries(_quarter_hours(before), paths)


async def _candles(
    client: RpcClient, symbol: str, timeframe: Timeframe, start_ms: Millis, end_ms: Millis
) -> CandlesResult:
    """All pages of a span as one."""
    whole = CandlesResult([], [], [], [], [], [], None)
    next_ms: Millis | None = start_ms
    while next_ms is not None:
        params = {"symbol": symbol, "timeframe": str(timeframe), "start": next_ms, "end": end_ms}
        page = await client.call("rag.get_candles", params, CandlesResult)
        for column in ("open_time", "open", "high", "low", "close", "volume"):
            getattr(whole, column).extend(getattr(page, column))
        next_ms = page.next_start
    return whole


def _quarter_hours(candles: CandlesResult) -> list[QuarterHour]:
    buckets: dict[Millis, list[int]] = {}
    for row, time_ms in enumerate(candles.open_time):
        buckets.setdefault(time_ms // STEP_MS * STEP_MS, []).append(row)
    return [
        QuarterHour(
            start_ms,
            candles.open[rows[0]],
            max(candles.high[row] for row in rows),
            min(candles.low[row] for row in rows),
            candles.close[rows[-1]],
        )
        for start_ms, rows in buckets.items()
    ]


def _path(candles: CandlesResult, start_ms: Millis, length_ms: Millis) -> list[float]:
    times = (time_ms + length_ms for time_ms in candles.open_time)
    closes = dict(zip(times, candles.close, strict=True))
    first = closes.get(start_ms, math.nan)
    steps = range(start_ms, start_ms + DAY_MS + 1, STEP_MS)
    return [(closes.get(time_ms, math.nan) / first - 1) * 100 for time_ms in steps]
