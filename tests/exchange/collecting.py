"""A collector in a process of its own, on a simulated clock that it shares with the fake exchange.

python -m tests.exchange.collecting CLOCK EXCHANGE SYMBOLS [--start DAYS] [--index]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from llm_trader.app.collection import CollectionPlan, collect_market
from llm_trader.app.job import Job
from llm_trader.errors import LlmTraderError
from llm_trader.logs import configure_logging
from llm_trader.market.exchange.config import ExchangeConfig
from llm_trader.market.exchange.venue import Venue, open_venue
from llm_trader.settings.loading import load_settings
from llm_trader.timeframe import Timeframe
from tests.exchange.clock import SimulatedClock
from tests.exchange.fetching import without_rate_limit
from tests.exchange.process import ExchangeProcess
from tests.exchange.server import FakeExchange

_REPOSITORY = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("clock", type=SimulatedClock.parse)
    parser.add_argument("exchange")
    parser.add_argument("symbols")
    parser.add_argument("--start", default="10")
    parser.add_argument("--timeframes", default="3m,4h")
    parser.add_argument("--index", action="store_true")
    given = parser.parse_args(arguments)
    configure_logging("info", "json")
    plan = CollectionPlan(
        exchange=given.exchange,
        symbols=tuple(given.symbols.split(",")),
        timeframes=tuple(map(Timeframe.parse, given.timeframes.split(","))),
        start=given.start,
        is_indexed=given.index,
    )
    settings = load_settings(environ=os.environ)
    clock: SimulatedClock = given.clock

    def report(event: Any) -> None:
        sys.stdout.write(f"{msgspec.json.encode(event).decode()}\n")
        sys.stdout.flush()

    def connect(name: str, config: ExchangeConfig) -> Venue:
        wall_clock = lambda: clock.now_ms() / 1000  # noqa: E731
        venue = open_venue(name, config, sleep=clock.sleep, wall_clock=wall_clock)
        without_rate_limit(venue)
        return venue

    job = Job(settings, os.environ, clock.now_ms())
    collect_market(job, plan, clock, report, connect)


class Process(Protocol):
    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float) -> int: ...

    def send_signal(self, number: int) -> None: ...

    def kill(self) -> None: ...


# Starts a collector with arguments, additional variables, and files for its output and log.
Start = Callable[[list[str], dict[str, str], Path, Path], Process]


def spawned(arguments: list[str], environ: dict[str, str], out: Path, log: Path) -> Process:
    with out.open("a") as stdout, log.open("a") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.exchange.collecting", *arguments],
            cwd=_REPOSITORY,
            env=os.environ | environ,
            stdout=stdout,
            stderr=stderr,
            text=True,
        )


class Forked:
    """A process whose modules are loaded already: ccxt alone takes seconds.

    It is forked from a server that has done nothing else than to import them.
    """

    def __init__(self, arguments: list[str], environ: dict[str, str], out: Path, log: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.preloaded"])
        self._process = context.Process(
            target=_run_forked, args=(arguments, environ, str(out), str(log))
        )
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"the collector has not ended for {timeout:g} s")
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self._process.is_alive():
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def _run_forked(arguments: list[str], environ: dict[str, str], out: str, log: str) -> None:
    os.environ.update(environ)
    for path, descriptor in ((out, 1), (log, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), descriptor)
    try:
        main(arguments)
    except LlmTraderError as error:
        sys.stderr.write(f"{type(error).__name__}: {error.message}\n")
        sys.exit(1)


class Collector:
    """The process, and the lines that it has printed and logged."""

    def __init__(self, process: Process, out: Path, log: Path) -> None:
        self.process = process
        self._out, self._log = out, log

    @property
    def reports(self) -> list[Any]:
        return [msgspec.json.decode(line) for line in _whole_lines(self._out)]

    @property
    def events(self) -> list[Any]:
        lines = _whole_lines(self._log)
        return [msgspec.json.decode(line) for line in lines if line.startswith("{")]

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
    exchange: FakeExchange | ExchangeProcess,
    clock: SimulatedClock,
    venue: str,
    symbols: str,
    folder: Path,
    *more: str,
    start: Start = Forked,
    **settings: object,
) -> Iterator[Collector]:
    """Killed at the end unless it has ended; the store is `folder/store`."""
    folder.mkdir(parents=True, exist_ok=True)
    out, log = folder / "out.txt", folder / "log.txt"
    out.touch()
    log.touch()
    variables = {"market__store": folder / "store", "index__path": folder / "index", **settings}
    environ = {f"LLM_TRADER_{name.upper()}": str(value) for name, value in variables.items()}
    arguments = [str(clock), venue, symbols, *more]
    process = start(arguments, exchange.environ(streams=True) | environ, out, log)
    try:
        yield Collector(process, out, log)
    finally:
        process.kill()
        process.wait(10)


def _whole_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


if __name__ == "__main__":
    main()
