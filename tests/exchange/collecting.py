"""A collector in a process of its own, on a simulated clock that it shares with the fake exchange.

python -m tests.exchange.collecting CLOCK EXCHANGE SYMBOLS [--start DAYS] [--index]
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from llm_trader.app.collection import CollectionPlan, collect_market
from llm_trader.app.job import Job
from llm_trader.logs import configure_logging
from llm_trader.market.exchange.config import ExchangeConfig
from llm_trader.market.exchange.venue import Venue, open_venue
from llm_trader.settings.loading import load_settings
from llm_trader.timeframe import H4, M3
from tests.exchange.clock import SimulatedClock
from tests.exchange.fetching import without_rate_limit
from tests.exchange.server import FakeExchange

_REPOSITORY = Path(__file__).resolve().parents[2]


def connect(name: str, config: ExchangeConfig) -> Venue:
    venue = open_venue(name, config)
    without_rate_limit(venue)
    return venue


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("clock", type=SimulatedClock.parse)
    parser.add_argument("exchange")
    parser.add_argument("symbols")
    parser.add_argument("--start", default="10")
    parser.add_argument("--index", action="store_true")
    given = parser.parse_args()
    configure_logging("info", "json")
    plan = CollectionPlan(
        exchange=given.exchange,
        symbols=tuple(given.symbols.split(",")),
        timeframes=(M3, H4),
        start=given.start,
        is_indexed=given.index,
    )
    settings = load_settings(environ=os.environ)

    def report(event: Any) -> None:
        sys.stdout.write(f"{msgspec.json.encode(event).decode()}\n")
        sys.stdout.flush()

    job = Job(settings, os.environ, given.clock.now_ms())
    collect_market(job, plan, given.clock, report, connect)


class Collector:
    """The process, and the lines that it has printed and logged."""

    def __init__(self, process: subprocess.Popen[str], out: Path, log: Path) -> None:
        self.process = process
        self._out, self._log = out, log

    @property
    def reports(self) -> list[Any]:
        return [msgspec.json.decode(line) for line in _whole_lines(self._out)]

    @property
    def events(self) -> list[Any]:
        return [msgspec.json.decode(line) for line in _whole_lines(self._log)]

    def logged(self, event: str) -> bool:
        return any(entry["event"] == event for entry in self.events)

    def boundaries(self) -> list[str]:
        return [report["boundary"] for report in self.reports if "boundary" in report]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    @property
    def log(self) -> str:
        return self._log.read_text()


@contextmanager
def collecting(
    exchange: FakeExchange,
    clock: SimulatedClock,
    venue: str,
    symbols: str,
    folder: Path,
    *more: str,
    **settings: object,
) -> Iterator[Collector]:
    """Killed at the end unless it has ended; the store is `folder/store`."""
    folder.mkdir(parents=True, exist_ok=True)
    out, log = folder / "out.txt", folder / "log.txt"
    variables = {"market__store": folder / "store", "index__path": folder / "index", **settings}
    environ = {f"LLM_TRADER_{name.upper()}": str(value) for name, value in variables.items()}
    command = [sys.executable, "-m", "tests.exchange.collecting", str(clock), venue, symbols, *more]
    with (
        out.open("a") as stdout,
        log.open("a") as stderr,
        subprocess.Popen(
            command,
            cwd=_REPOSITORY,
            env=os.environ | exchange.environ(streams=True) | environ,
            stdout=stdout,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        try:
            yield Collector(process, out, log)
        finally:
            process.kill()


def _whole_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


if __name__ == "__main__":
    main()
