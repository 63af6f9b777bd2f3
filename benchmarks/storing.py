"""Writing to the market store: one candle at the end of a long series."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import lmdb
import numpy as np

from benchmarks.timing import Figure
from llm_trader.market.candles import CandleSeries
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import M1

_SYMBOL = "BTCUSDT"
_ROWS = 1_500_000  # almost three years of 1m candles
_SHORT = 1_000
_APPENDS = 300
_START_MS = 1_704_067_200_000


class _Seconds(NamedTuple):
    wall: float
    cpu: float


def append(folder: Path) -> list[Figure]:
    """Wall time, as the disk has its part in it; the floor puts one record and commits it."""
    with (
        MarketStore.open(folder / "long", write=True, exchange="benchmark") as long,
        MarketStore.open(folder / "short", write=True, exchange="benchmark") as short,
        lmdb.open(str(folder / "bare"), map_size=2**30) as bare,
    ):
        times: dict[str, list[_Seconds]] = {"long": [], "short": [], "bare": []}
        for store, rows in ((long, _ROWS), (short, _SHORT)):
            store.write(_SYMBOL, _candles(0, rows), "file", written_at_ms=_START_MS)
        for number in range(_APPENDS):
            for name, store, rows in (("long", long, _ROWS), ("short", short, _SHORT)):
                append_one = partial(_append, store, _candles(rows + number, 1))
                times[name].append(_measure(append_one))
            times["bare"].append(_measure(partial(_put, bare, number)))
    wall, cpu = (
        {name: median(seconds[i] for seconds in times[name]) * 1000 for name in times}
        for i in range(2)
    )
    growth = cpu["long"] / cpu["short"]
    return [
        Figure(
            f"appending one candle to {_ROWS:,}, against a bare LMDB put and commit",
            f"{wall['long'] / wall['bare']:.2f} x ({wall['long']:.2f} ms, floor "
            f"{wall['bare']:.2f} ms, CPU {cpu['long']:.2f} ms)",
            "1 ms more",
            wall["long"] - wall["bare"] < 1,
        ),
        Figure(
            f"its CPU time, against a series of {_SHORT:,}",
            f"{growth:.2f} x",
            "1.3 x",
            growth <= 1.3,
        ),
    ]


def _candles(first: int, count: int) -> CandleSeries:
    close = 100 + np.arange(first, first + count) % 7
    columns = dict.fromkeys(("open", "high", "low", "close", "volume"), close)
    times = _START_MS - _ROWS * M1.ms + np.arange(first, first + count) * M1.ms
    return CandleSeries.validated(M1, {"open_time_ms": times, **columns})


def _append(store: MarketStore, candle: CandleSeries) -> None:
    store.write(_SYMBOL, candle, "live", written_at_ms=_START_MS)


def _put(environment: lmdb.Environment, number: int) -> None:
    with environment.begin(write=True) as txn:
        txn.put(b"%013d" % number, bytes(80))


def _measure(work: Callable[[], object]) -> _Seconds:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    return _Seconds(time.perf_counter() - wall_s, time.process_time() - cpu_s)
