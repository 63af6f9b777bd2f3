"""`python -m benchmarks.collecting [--venue V] [--symbols N] [--minutes N]`: a collector's load.

A collector of 100 symbols with an index and an intake, as a process, hears the fake exchange of the
tests at the pace of the venue; both have a process of their own. Not a part of `make bench`, as it
takes minutes of real time. It needs the extras `exchange` and `dev`.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import psutil
from tests.delivery.test_sender import Receiver, address_of
from tests.exchange.clock import SimulatedClock
from tests.exchange.collecting import Collector, collecting, spawned
from tests.exchange.process import ExchangeProcess
from tests.rpc.stub import serving

from llm_trader.timeframe import DAY_MS, MINUTE_MS

# Enough for states, so that boundaries and the index have their work.
_DAYS = 24
_LOOK_EVERY_S = 15.0
# What a boundary brings is done within a minute.
_BOUNDARY_WORK_MS = MINUTE_MS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.collecting", description=__doc__)
    parser.add_argument("--venue", choices=("binance", "bybit"), default="binance")
    parser.add_argument("--symbols", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=32.0, help="32 have two boundaries")
    parser.add_argument("--days", type=int, default=_DAYS, help="of history")
    asyncio.run(_measure(parser.parse_args()))


async def _measure(given: argparse.Namespace) -> None:
    now_ms = round(time.time() * 1000)
    clock = SimulatedClock.starting(now_ms)
    symbols = [f"S{number:03d}USDT" for number in range(given.symbols)]
    start_ms = (now_ms // DAY_MS - given.days) * DAY_MS
    receiver = Receiver()
    async with serving(receiver.method) as intake:
        with (
            tempfile.TemporaryDirectory(prefix="llm-trader-bench-") as folder,
            ExchangeProcess(symbols, clock, start_ms=start_ms, days=given.days + 3) as exchange,
            collecting(
                exchange, clock, given.venue, ",".join(symbols), Path(folder),
                "--start", str(given.days), "--index",
                start=spawned, delivery__intakes=f'["{address_of(intake)}"]',
            ) as collector,
        ):  # fmt: skip
            usage = await _watch(collector, given.minutes, receiver)
            collector.stop()
            counts = collector.reports[-1]["counts"]
    print(
        f"CPU of two cores: {_share(usage.steady)} steady, {_share(usage.at_boundary)} in the "
        f"minute after a boundary; peak {usage.peak_mb:.0f} MB; {len(receiver.taken)} snapshots "
        f"sent, {sum(bool(post.late) for post in receiver.taken)} of them without late data; "
        f"{counts['streamed']} candles streamed of {counts}"
    )


@dataclass
class _Usage:
    """Shares of two cores, and the highest resident memory that the system has seen."""

    steady: list[float] = field(default_factory=list)
    at_boundary: list[float] = field(default_factory=list)
    peak_mb: float = 0.0


async def _watch(collector: Collector, minutes: float, receiver: Receiver) -> _Usage:
    process, usage = psutil.Process(collector.process.pid), _Usage()
    began_s = time.monotonic()
    for event, meaning in (("collecting", "up to date"), ("following", "indexed")):
        while not collector.logged(event):  # noqa: ASYNC110  another process logs it
            await asyncio.sleep(0.5)
        cpu_s = sum(process.cpu_times()[:2])
        print(
            f"{meaning} after {time.monotonic() - began_s:.0f} s, {cpu_s:.0f} s of CPU, "
            f"peak {_status_mb(process, 'VmHWM'):.0f} MB",
            flush=True,
        )
    for _ in range(round(minutes * 60 / _LOOK_EVERY_S)):
        before_s, at_s = sum(process.cpu_times()[:2]), time.monotonic()
        since_boundary_ms = time.time() * 1000 % (15 * MINUTE_MS)
        await asyncio.sleep(_LOOK_EVERY_S)
        used_s, passed_s = sum(process.cpu_times()[:2]) - before_s, time.monotonic() - at_s
        share = used_s / passed_s / 2
        is_boundary = (
            since_boundary_ms < _BOUNDARY_WORK_MS
            or since_boundary_ms > 15 * MINUTE_MS - _LOOK_EVERY_S * 1000
        )
        (usage.at_boundary if is_boundary else usage.steady).append(share)
        usage.peak_mb = _status_mb(process, "VmHWM")
        print(
            f"CPU {share:.1%} of two cores{' (boundary)' if is_boundary else ''}, "
            f"{_status_mb(process, 'VmRSS'):.0f} MB resident, "
            f"{_status_mb(process, 'RssAnon'):.0f} MB of it anonymous, peak {usage.peak_mb:.0f} "
            f"MB, {len(receiver.taken)} snapshots",
            flush=True,
        )
    return usage


def _status_mb(process: psutil.Process, name: str) -> float:
    """A line of /proc/PID/status, which has it in kB."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def _share(shares: list[float]) -> str:
    return f"{fmean(shares):.1%}" if shares else "not measured"


if __name__ == "__main__":
    main()
