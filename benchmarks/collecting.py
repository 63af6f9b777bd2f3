"""`python -m benchmarks.collecting [--venue V] [--symbols N] [--minutes N]`: a collector's load.

A collector of 100 symbols with an index, as a process, hears the fake exchange of the tests at the
pace of the venue; both have a process of their own. Not a part of `make bench`, as it takes minutes
of real time. It needs the extras `exchange` and `dev`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import psutil
from tests.exchange.clock import SimulatedClock
from tests.exchange.collecting import collecting
from tests.exchange.process import ExchangeProcess

from llm_trader.timeframe import DAY_MS

# Enough for states, so that boundaries and the index have their work.
_DAYS = 24
_LOOK_EVERY_S = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.collecting", description=__doc__)
    parser.add_argument("--venue", choices=("binance", "bybit"), default="binance")
    parser.add_argument("--symbols", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=16.0, help="a quarter-hour has all work")
    given = parser.parse_args()
    now_ms = round(time.time() * 1000)
    clock = SimulatedClock.starting(now_ms)
    symbols = [f"S{number:03d}USDT" for number in range(given.symbols)]
    start_ms = (now_ms // DAY_MS - _DAYS) * DAY_MS
    with (
        tempfile.TemporaryDirectory(prefix="llm-trader-bench-") as folder,
        ExchangeProcess(symbols, clock, start_ms=start_ms, days=_DAYS + 3) as exchange,
        collecting(
            exchange, clock, given.venue, ",".join(symbols), Path(folder),
            "--start", str(_DAYS), "--index",
        ) as collector,
    ):  # fmt: skip
        process = psutil.Process(collector.process.pid)
        began_s = time.monotonic()
        while not collector.logged("collecting"):
            time.sleep(0.5)
        cpu_s = sum(process.cpu_times()[:2])
        print(f"up to date after {time.monotonic() - began_s:.0f} s, {cpu_s:.0f} s of CPU")
        peak_mb = 0.0
        for _ in range(round(given.minutes * 60 / _LOOK_EVERY_S)):
            before_s, at_s = sum(process.cpu_times()[:2]), time.monotonic()
            time.sleep(_LOOK_EVERY_S)
            used_s, passed_s = sum(process.cpu_times()[:2]) - before_s, time.monotonic() - at_s
            memory_mb = process.memory_info().rss / 2**20
            peak_mb = max(peak_mb, memory_mb)
            print(
                f"CPU {used_s / passed_s / 2:.1%} of two cores, {memory_mb:.0f} MB resident",
                flush=True,
            )
        collector.stop()
        counts = collector.reports[-1]["counts"]
        print(f"peak {peak_mb:.0f} MB; {counts['streamed']} candles streamed of {counts}")


if __name__ == "__main__":
    main()
