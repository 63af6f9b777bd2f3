"""Runs the exchange as a process of its own; `process.py` starts it.

It writes its address as one line, then obeys the commands that come line by line, and ends with its
input.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from llm_trader.market.simulation import simulate
from tests.exchange.clock import SimulatedClock
from tests.exchange.listings import Listing, listing_of
from tests.exchange.real_data import real_listings
from tests.exchange.server import FakeExchange


def main() -> None:
    options = _options()
    updates = options.updates_per_candle
    with FakeExchange(_listings(options), options.clock, updates_per_candle=updates) as exchange:
        _say(exchange.url)
        for line in sys.stdin:
            _say(json.dumps(_obey(exchange, json.loads(line))))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.exchange", description=__doc__)
    parser.add_argument("--clock", type=SimulatedClock.parse, required=True)
    parser.add_argument("--symbols", type=lambda text: text.split(","), default=["BTCUSDT"])
    parser.add_argument("--updates-per-candle", type=int)
    parser.add_argument("--data", type=Path, help="folder of real data; else it is simulated")
    parser.add_argument("--start-ms", type=int, help="of the simulated data")
    parser.add_argument("--days", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def _listings(options: argparse.Namespace) -> list[Listing]:
    if options.data is not None:
        return real_listings(options.data, options.symbols)
    start_ms = options.clock.start_ms if options.start_ms is None else options.start_ms
    return [
        listing_of(
            simulate(symbol, start_ms=start_ms, days=options.days, seed=options.seed),
            five_minute=True,
        )
        for symbol in options.symbols
    ]


def _obey(exchange: FakeExchange, command: dict[str, Any]) -> dict[str, Any]:
    """The name of a command and its arguments, such as {"inject": {"kind": "disconnect"}}."""
    faults, market = exchange.stream_faults, exchange.market
    for name, arguments in command.items():
        match name:
            case "inject":
                faults.inject(**arguments)
            case "refuse":
                faults.refuse(**arguments)
            case "plan":
                faults.plan(**arguments)
            case "disturb":
                faults.shares, faults.seed = arguments["shares"], arguments.get("seed", 1)
            case "fail_requests":
                exchange.faults.at_random(**arguments)
            case "skew_ms":
                market.skew_ms = arguments
            case "delist":
                market.delist(**arguments)
            case "state":
                pass
            case _:
                return {"error": f"unknown command {name}"}
    return {
        "now_ms": market.now_ms,
        "connections": len(exchange.sockets.connections),
        "accepted": exchange.sockets.accepted,
        "stream_faults": faults.happened,
        "requests": len(exchange.asked),
        "failed_requests": exchange.faults.happened,
    }


main()
