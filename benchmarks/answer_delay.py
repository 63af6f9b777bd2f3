"""`python -m benchmarks.answer_delay [--symbols N]`: how soon a server has the newest state.

An exchange, a collector and a server are processes of their own, at real time. Around one boundary
the server is asked for each symbol 20 times a second, without a state of the client, until it
answers with the state of the boundary. Not a part of `make bench`, as it takes two minutes. It
needs the extras `exchange` and `dev`.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from tests.cli.corridor import serving_process
from tests.exchange.clock import SimulatedClock
from tests.exchange.collecting import collecting, spawned
from tests.exchange.process import ExchangeProcess

from llm_trader.rpc.client import RpcClient, RpcError
from llm_trader.serving.wire import QueryPatternsResult
from llm_trader.timeframe import DAY_MS, MINUTE_MS, Millis

_DAYS = 24
_START_MS: Millis = 1_735_689_600_000
_BOUNDARY_MS: Millis = _START_MS + _DAYS * DAY_MS + 10 * 60 * MINUTE_MS + 15 * MINUTE_MS
# Collector and server have to be up to date before the boundary.
_AHEAD_MS = 100_000
_ASK_EVERY_S = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answer_delay", description=__doc__)
    parser.add_argument("--symbols", type=int, default=5)
    given = parser.parse_args()
    symbols = [f"S{number:03d}USDT" for number in range(given.symbols)]
    clock = SimulatedClock.starting(_BOUNDARY_MS - _AHEAD_MS)
    with (
        tempfile.TemporaryDirectory(prefix="llm-trader-bench-") as name,
        ExchangeProcess(symbols, clock, start_ms=_START_MS, days=_DAYS + 2) as exchange,
        collecting(
            exchange, clock, "binance", ",".join(symbols), Path(name),
            "--start", str(_DAYS), "--index", start=spawned,
        ) as collector,
    ):  # fmt: skip
        while not collector.logged("following"):
            time.sleep(0.5)
        paths = ("--store", f"{name}/store", "--index", f"{name}/index", "--min-matches", "1")
        with serving_process(*paths) as (_, port):
            delays_ms = asyncio.run(_all_delays_ms(port, symbols, clock))
    delays_ms.sort()
    print(
        f"{len(symbols)} symbols: the state of a boundary was answered {delays_ms[0]} to "
        f"{delays_ms[-1]} ms after it, in the median {delays_ms[len(delays_ms) // 2]} ms; the "
        "stream has shown that its candle is over up to 250 ms after it"
    )


async def _all_delays_ms(port: int, symbols: list[str], clock: SimulatedClock) -> list[Millis]:
    return await asyncio.gather(*(_delay_ms(port, symbol, clock) for symbol in symbols))


async def _delay_ms(port: int, symbol: str, clock: SimulatedClock) -> Millis:
    """From the boundary to the answer with its state."""
    params = {"symbol": symbol, "timestamp": _BOUNDARY_MS}
    async with await RpcClient.connect("127.0.0.1", port) as client:
        while True:
            if clock.now_ms() >= _BOUNDARY_MS:
                try:
                    reply = await client.call("rag.query_patterns", params, QueryPatternsResult)
                    if reply.metadata.state_as_of == _BOUNDARY_MS:
                        return clock.now_ms() - _BOUNDARY_MS
                except RpcError as error:
                    if "stale" not in error.message and "old" not in error.message:
                        raise
            await asyncio.sleep(_ASK_EVERY_S)


if __name__ == "__main__":
    main()
