"""`make demo-live`: the whole way from an exchange to an answer, live, without a network or keys.

1. The exchange that the tests use replays a simulated market, many minutes a second.
2. `data collect` fetches its history, streams its candles, and indexes states as outcomes resolve.
3. `rag-rpc-server` answers from the same store and index.
4. Each snapshot that the collector posts is printed, and the server is asked what followed states
   like it.

Every part is a process of its own, as in use; only their clock is simulated.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import msgspec

from llm_trader.app.collection import CollectionPlan, collect_market
from llm_trader.app.job import Job
from llm_trader.cli.fan import range_now
from llm_trader.delivery.jobs import METHOD, SnapshotPost
from llm_trader.logs import configure_logging
from llm_trader.rpc.client import RpcClient
from llm_trader.rpc.config import RpcConfig
from llm_trader.rpc.dispatcher import Dispatcher, Method, RequestContext
from llm_trader.rpc.errors import PROTOCOL_ERRORS
from llm_trader.rpc.server import RpcServer
from llm_trader.serving.wire import QueryPatternsResult
from llm_trader.settings.loading import load_settings
from llm_trader.settings.tree import ENV_PREFIX
from llm_trader.timeframe import DAY_MS, H4, M3, iso8601, parse_rfc3339

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT))

from tests.exchange.clock import SimulatedClock  # noqa: E402  of the repository, not installed
from tests.exchange.process import ExchangeProcess  # noqa: E402

_SYMBOLS = ("BTCUSDT", "ETHUSDT")
_MARKET_START_MS = parse_rfc3339("2025-01-01T00:00:00Z")
# A state reads 60 days, and 40 days of states are enough to find similar ones.
_HISTORY_DAYS = 100
# A boundary every 1.5 s, so that a person can read along.
_SPEED = 600.0
_BOUNDARIES = 8
_SERVER = "from llm_trader.cli.main import rag_rpc_server; rag_rpc_server()"
_LONGEST_START_S = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--boundaries", type=int, default=_BOUNDARIES, help="answers to show")
    parser.add_argument("--speed", type=float, default=_SPEED, help="simulated seconds a second")
    parser.add_argument("--collector", nargs=2, metavar=("CLOCK", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.collector:
        _collect(SimulatedClock.parse(options.collector[0]), Path(options.collector[1]))
        return
    configure_logging("warn", "console")
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="llm-trader-live-") as folder:
        asyncio.run(_show(Path(folder), options.speed, options.boundaries))
    _say(f"\nDone in {time.monotonic() - started_s:.1f} s.")


async def _show(folder: Path, speed: float, boundaries: int) -> None:
    start_ms = _MARKET_START_MS + _HISTORY_DAYS * DAY_MS
    clock = SimulatedClock.starting(start_ms, speed)
    _say(f"1. An exchange replays a simulated market, {speed / 60:g} minutes a second.")
    with ExchangeProcess(
        _SYMBOLS,
        clock,
        updates_per_candle=30,
        start_ms=_MARKET_START_MS,
        days=_HISTORY_DAYS + 3,
        seed=7,
    ) as exchange:
        posts: asyncio.Queue[SnapshotPost] = asyncio.Queue()
        async with _intake(posts) as port:
            environ = _environment(exchange, folder, port)
            _say(f"2. data collect fetches and indexes {_HISTORY_DAYS} days, then what comes.")
            collecting = [__file__, "--collector", str(clock), str(folder)]
            async with _Process(collecting, environ) as collector:
                for _ in _SYMBOLS:
                    _say(_indexed(await collector.event(_is_indexed)))
                _say("3. rag-rpc-server opens the store and the index.")
                async with _Process(_serving(folder), environ) as server:
                    listening = await server.event(lambda e: e.get("event") == "rpc_listening")
                    port = int(listening["port"])
                    _say("4. Each posted snapshot, and what the server says of the next 4 hours:")
                    printing = asyncio.create_task(_print_indexed(collector))
                    async with await RpcClient.connect("127.0.0.1", port) as client:
                        try:
                            await _answer(posts, client, boundaries * len(_SYMBOLS))
                        finally:
                            printing.cancel()
            end = await collector.event(lambda event: "clock_offset_ms" in event)
            counts = end["counts"]
            _say(
                f"5. All have stopped. The collector requested {counts['backfilled']:,} rows, and "
                f"heard the end of {counts['streamed']} candles."
            )


def _collect(clock: SimulatedClock, folder: Path) -> None:
    """The process of the collector: `data collect --json` by a simulated clock."""
    configure_logging("warn", "json")
    overrides = {"market.store": str(folder / "market"), "index.path": str(folder / "index")}
    settings = load_settings(environ=os.environ, overrides=overrides)
    plan = CollectionPlan(
        exchange="bybit",
        symbols=_SYMBOLS,
        timeframes=(M3, H4),
        start=iso8601(_MARKET_START_MS),
        is_indexed=True,
    )

    def report(event: Any) -> None:
        sys.stdout.write(f"{msgspec.json.encode(event).decode()}\n")
        sys.stdout.flush()

    collect_market(Job(settings, os.environ, clock.now_ms()), plan, clock, report)


@asynccontextmanager
async def _intake(posts: asyncio.Queue[SnapshotPost]) -> AsyncIterator[int]:
    """Where the collector posts snapshots; a workflow would be there."""

    async def post(params: SnapshotPost, context: RequestContext) -> dict[str, bool]:
        posts.put_nowait(params)
        return {"accepted": True}

    method = Method(METHOD, SnapshotPost, post, "Take a snapshot.", dict[str, bool])
    server = RpcServer(Dispatcher([method], errors=PROTOCOL_ERRORS), RpcConfig(port=0))
    await server.start()
    try:
        yield server.address[1]
    finally:
        await server.stop()


def _environment(exchange: ExchangeProcess, folder: Path, intake_port: int) -> dict[str, str]:
    """Without the settings of the environment, such as of a real index."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(ENV_PREFIX)}
    paths = os.pathsep.join(filter(None, sys.path))
    settings = {
        "DELIVERY__INTAKES": f"127.0.0.1:{intake_port}",
        # Limits of simulated seconds, of which hundreds pass while a process waits its turn.
        "DELIVERY__MAX_WAIT_S": "600",
        "DELIVERY__DEADLINE_S": "3600",
        "MARKET__EXCHANGE__SILENCE_S": "3600",
    }
    ours = {f"{ENV_PREFIX}{name}": value for name, value in settings.items()}
    return {**own, **exchange.environ(streams=True), **ours, "PYTHONPATH": paths}


class EndedError(Exception):
    """A process ended before what was waited for."""


class _Process:
    """A process whose output, lines of JSON, becomes `events`; use it as a context manager."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._command = [sys.executable, *command]
        self._environ = environ
        self._other_lines: list[str] = []
        self._started: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._started = await asyncio.create_subprocess_exec(
            *self._command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environ,
        )
        self._reading = asyncio.create_task(self._read(self._started))
        return self

    async def __aexit__(self, *raised: object) -> None:
        if self._started is None or self._reading is None:
            return
        with suppress(ProcessLookupError):
            self._started.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            await self._started.wait()
            await self._reading

    async def event(self, is_it: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next event of a kind. Raises `EndedError` if the process ends before."""
        async with asyncio.timeout(_LONGEST_START_S):
            while not is_it(event := await self.events.get()):
                if not event:
                    said = "".join(self._other_lines)
                    raise EndedError(f"{' '.join(self._command)} ended:\n{said}")
        return event

    async def _read(self, started: asyncio.subprocess.Process) -> None:
        async for line in started.stdout or ():
            try:
                self.events.put_nowait(json.loads(line))
            except ValueError:
                self._other_lines.append(line.decode(errors="replace"))
        self.events.put_nowait({})


def _serving(folder: Path) -> list[str]:
    paths = ["--store", str(folder / "market"), "--index", str(folder / "index")]
    return ["-c", _SERVER, "--port", "0", "--min-matches", "1", *paths]


async def _print_indexed(collector: _Process) -> None:
    while True:
        _say(_indexed(await collector.event(_is_indexed)))


def _is_indexed(event: dict[str, Any]) -> bool:
    return bool(event.get("added"))


def _indexed(event: dict[str, Any]) -> str:
    states = "1 state more" if event["added"] == 1 else f"{event['added']:,} states more"
    return f"   {_minute(event['at'])}  {event['symbol']}  indexed: {states}"


async def _answer(posts: asyncio.Queue[SnapshotPost], client: RpcClient, count: int) -> None:
    async with asyncio.timeout(_LONGEST_START_S):
        for _ in range(count):
            snapshot = (await posts.get()).snapshot
            params = {"symbol": snapshot.symbol, "timestamp": snapshot.timestamp}
            answer = await client.call("rag.query_patterns", params, QueryPatternsResult)
            _say(_in_a_line(snapshot.symbol, snapshot.timestamp, snapshot.price, answer))


def _in_a_line(symbol: str, as_of_ms: int, price: float, answer: QueryPatternsResult) -> str:
    ends = range_now(answer.evidence.horizons["4h"])
    expected = "no forecast" if ends is None else f"{ends[0]:+.2f} to {ends[1]:+.2f} %"
    similar = "; nothing like it"
    if answer.matches:
        nearest = answer.matches[0]
        similar = f"; most like {_minute(nearest.date)} ({nearest.similarity:.2f})"
    moment = _minute(iso8601(as_of_ms))
    return f"   {moment}  {symbol} {price:,.2f}: {expected}{similar}"


def _minute(moment: str) -> str:
    return moment[:16].replace("T", " ")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
