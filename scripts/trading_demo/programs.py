"""The processes of the demo that need another clock than the machine's, or stand for the world.

`exchange` and `model` are the stand-ins of the tests. `collector` and `workflow` are what
`llm-trader data collect` and `llm-trader workflow serve` run, by the clock of the demo.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from llm_trader.logs import configure_logging
from llm_trader.timeframe import H4, M3, Millis, iso8601
from trading_demo.clock import SharedClock


def main() -> None:
    parser = argparse.ArgumentParser(prog="trading_demo.programs")
    parser.add_argument("program", choices=["exchange", "model", "collector", "workflow"])
    parser.add_argument("--clock", type=Path)
    parser.add_argument("--symbols", type=lambda text: tuple(text.split(",")), default=())
    parser.add_argument("--start-ms", type=int, default=0)
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--graph", type=Path)
    parser.add_argument("--die-in-order-from-ms", type=int)
    given = parser.parse_args()
    configure_logging("info", "json")
    match given.program:
        case "exchange":
            _exchange(SharedClock(given.clock), given.symbols, given.start_ms, given.days)
        case "model":
            _model()
        case "collector":
            _collector(SharedClock(given.clock), given.symbols, given.start_ms)
        case "workflow":
            _workflow(SharedClock(given.clock), given.graph, given.die_in_order_from_ms)


def _say(event: Any) -> None:
    sys.stdout.write(f"{msgspec.json.encode(event).decode()}\n")
    sys.stdout.flush()


def _until_stopped() -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()


def _exchange(clock: Any, symbols: Sequence[str], start_ms: Millis, days: int) -> None:
    from tests.exchange.listings import listing_of
    from tests.exchange.server import FakeExchange

    from llm_trader.market.simulation import simulate

    markets = [simulate(symbol, start_ms=start_ms, days=days, seed=7) for symbol in symbols]
    # An update every 6 s of a candle, as often as it takes to notice its end soon.
    with FakeExchange(map(listing_of, markets), clock, updates_per_candle=30) as exchange:
        _say({"url": exchange.url})
        _until_stopped()


def _model() -> None:
    from tests.llm.stub.server import StubServer

    from trading_demo.model import follow_evidence

    with StubServer(decide=follow_evidence) as stub:
        _say({"url": stub.url})
        _until_stopped()


def _collector(clock: SharedClock, symbols: Sequence[str], start_ms: Millis) -> None:
    from llm_trader.app.collection import CollectionPlan, collect_market
    from llm_trader.app.job import Job
    from llm_trader.settings.loading import load_settings

    plan = CollectionPlan(
        exchange="bybit",
        symbols=tuple(symbols),
        timeframes=(M3, H4),
        start=iso8601(start_ms),
        is_indexed=True,
    )
    settings = load_settings(environ=os.environ)
    collect_market(Job(settings, os.environ, clock.now_ms()), plan, clock, _say)


def _workflow(clock: SharedClock, graph: Path, die_from_ms: Millis | None) -> None:
    """With a time it kills itself in the middle of the first order from then on."""
    import anthropic  # noqa: F401  now, and not while the first decision waits

    from llm_trader.app.job import Job
    from llm_trader.app.llm_deciders import DeciderChoice
    from llm_trader.app.workflow.server import WorkflowChoice, workflow_server
    from llm_trader.rpc.server import serve, stop_on_signals
    from llm_trader.settings.loading import load_settings
    from llm_trader.workflow.orders import client_order_id
    from llm_trader.workflow.paper.reading import read_books

    settings = load_settings(environ=os.environ)
    # It begins with the others and has loaded its modules when the collector makes the store.
    while not settings.market.store.exists():
        time.sleep(0.05)

    def watch(run: str, node: str, what: str) -> None:
        if node != "execute" or what != "ends":
            return
        if die_from_ms is not None and clock.now_ms() >= die_from_ms:
            symbol = run.partition("-")[0]
            books = read_books(settings.workflow.paper.ledger, symbol, 1)
            placed = {order.intent.client_order_id for order in books.orders} if books else set()
            if client_order_id(run, symbol, "o") in placed:
                # The books have the order, and the run does not know that yet.
                _say({"dies_in": run})
                os.kill(os.getpid(), signal.SIGKILL)
        _say({"executed": run})

    async def run() -> None:
        stop = asyncio.Event()
        stop_on_signals(stop)
        job = Job(settings, os.environ, clock.now_ms())
        choice = WorkflowChoice(DeciderChoice("anthropic"))
        async with workflow_server(job, graph, choice, clock.now_ms, watch=watch) as opened:
            await serve(opened.server, stop)

    asyncio.run(run())


if __name__ == "__main__":
    main()
