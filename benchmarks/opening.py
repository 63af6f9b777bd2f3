"""From the start of a process to the first snapshot of a large store, with nothing cached."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from benchmarks.timing import Figure
from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.timeframe import DAY_MS, Millis

_SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
_START_MS: Millis = 1_735_689_600_000
_DAYS, _FEW_DAYS = 365, 30
_ROUNDS = 5
_TARGET_S = 2.0
# What `rag.get_snapshot` answers from; the time is the end of the store.
_PROGRAM = """
import sys
from pathlib import Path
from llm_trader.market.store import MarketStore
from llm_trader.snapshot.source import SnapshotSource
from llm_trader.timeframe import M3, M15
with MarketStore.open(Path(sys.argv[1])) as store:
    source = SnapshotSource(store, M3, M15.ms)
    print(source.view(sys.argv[2]).known_fields(int(sys.argv[3])))
"""


def opening(folder: Path) -> list[Figure]:
    """A store of a month is the floor: what a process costs that has hardly anything to read."""
    stores = {days: folder / f"year-{days}" for days in (_DAYS, _FEW_DAYS)}
    for days, path in stores.items():
        _write(path, days)
    taken: dict[int, list[float]] = {days: [] for days in stores}
    for number in range(_ROUNDS):
        for days, path in stores.items():
            taken[days].append(_first_snapshot_s(path, _SYMBOLS[number % 3], days))
    year, month = (median(taken[days]) for days in stores)
    rows = _DAYS * 480 * len(_SYMBOLS)
    return [
        Figure(
            f"opening a store of {rows:,} candles of 3m and its first snapshot, from the start of "
            f"the process, against {_FEW_DAYS} days",
            f"{year / month:.2f} x ({year:.2f} s, floor {month:.2f} s)",
            f"{_TARGET_S:g} s",
            year < _TARGET_S,
        )
    ]


def _write(path: Path, days: int) -> None:
    with MarketStore.open(path, write=True, exchange="benchmark") as store:
        for symbol in _SYMBOLS:
            market = simulate(symbol, start_ms=_START_MS, days=days, seed=7)
            candles = (market.intraday, market.four_hour)
            for series in (*candles, market.funding, market.open_interest):
                store.write(symbol, series, "simulation", written_at_ms=_START_MS)


def _first_snapshot_s(path: Path, symbol: str, days: int) -> float:
    arguments = [str(path), symbol, str(_START_MS + days * DAY_MS)]
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", _PROGRAM, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started
