"""The state of now from a store: nothing written, another symbol written, a new candle."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

from benchmarks.timing import Figure, in_turn
from benchmarks.workload import START_MS
from llm_trader.market.history import MarketHistory
from llm_trader.market.simulation import simulate
from llm_trader.market.store import MarketStore
from llm_trader.snapshot.source import SnapshotSource
from llm_trader.timeframe import DAY_MS, M5, M15, Millis

_SYMBOL = "BTCUSDT"
_DAYS = 65  # a day's 4h indicators reach back 60
_NOON_MS = START_MS + _DAYS * DAY_MS - DAY_MS // 2
_NEW_CANDLES = 60  # five hours of 5m candles
_TARGET_US = 100


def state_of_now(folder: Path) -> list[Figure]:
    market = simulate(_SYMBOL, start_ms=START_MS, days=_DAYS, seed=1, timeframe=M5)
    with MarketStore.open(folder / "now", write=True, exchange="benchmark") as store:
        _write(store, market.known_at(_NOON_MS))
        source = SnapshotSource(store, M5, M15.ms)
        _seconds(source, _NOON_MS)
        untouched = in_turn(
            lambda: source.view(_SYMBOL).known_fields(_NOON_MS),
            lambda: store.version,
            rounds=20,
            calls=200,
        )
        return [
            _quick("nothing written", untouched.subject_s, untouched.floor_s),
            *_with_writes(store, source, market),
        ]


def _with_writes(store: MarketStore, source: SnapshotSource, market: MarketHistory) -> list[Figure]:
    """The floor of a new candle is the day built again, by a source that has nothing cached."""
    candles = market.intraday.between(_NOON_MS, None)
    other_s, version_s, extended_s, rebuilt_s = [], [], [], []
    for row in range(_NEW_CANDLES):
        candle = candles.rows(slice(row, row + 1))
        now_ms = _NOON_MS + (row + 1) * M5.ms
        store.write("ETHUSDT", candle, "live", written_at_ms=now_ms)
        version_s.append(_cpu_of_version(store))
        other_s.append(_seconds(source, now_ms - M5.ms))
        store.write(_SYMBOL, candle, "live", written_at_ms=now_ms)
        extended_s.append(_seconds(source, now_ms))
        rebuilt_s.append(_seconds(SnapshotSource(store, M5, M15.ms), now_ms))
    pairs = zip(extended_s, rebuilt_s, strict=True)
    ratio = median(extended / rebuilt for extended, rebuilt in pairs)
    milliseconds = f"{median(extended_s) * 1e3:.1f} ms, floor {median(rebuilt_s) * 1e3:.1f} ms"
    return [
        _quick("another symbol written", median(other_s), median(version_s)),
        Figure(
            "state of now, a candle more, against building its day",
            f"{ratio:.2f} x ({milliseconds})",
            "0.6 x",
            ratio <= 0.6,
        ),
    ]


def _write(store: MarketStore, history: MarketHistory) -> None:
    store.write(_SYMBOL, history.intraday, "file", written_at_ms=_NOON_MS)
    store.write(_SYMBOL, history.four_hour, "file", written_at_ms=_NOON_MS)
    store.write(_SYMBOL, history.funding, "file", written_at_ms=_NOON_MS)
    store.write(_SYMBOL, history.open_interest, "file", written_at_ms=_NOON_MS)


def _seconds(source: SnapshotSource, as_of_ms: Millis) -> float:
    started = time.process_time()
    source.view(_SYMBOL).known_fields(as_of_ms)
    return time.process_time() - started


def _cpu_of_version(store: MarketStore) -> float:
    started = time.process_time()
    _ = store.version
    return time.process_time() - started


def _quick(circumstance: str, subject_s: float, floor_s: float) -> Figure:
    return Figure(
        f"state of now, {circumstance}, against reading the store's version",
        f"{subject_s / floor_s:.2f} x ({subject_s * 1e6:.0f} µs, floor {floor_s * 1e6:.0f} µs)",
        f"{_TARGET_US} µs",
        subject_s * 1e6 < _TARGET_US,
    )
