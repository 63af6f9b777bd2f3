"""A process that trades at the fake exchange until it is killed; `python -m` runs it.

It takes the exchange's address, the venue, the journal's path and the first run's number. Each run
turns the position; its number is written when it has ended.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from msgspec.structs import replace

from llm_trader.clock import WallClock
from llm_trader.errors import ExchangeError
from llm_trader.workflow.config import ExecutionConfig
from llm_trader.workflow.exchange.broker import ExchangeBroker
from llm_trader.workflow.exchange.opening import open_exchange_broker
from llm_trader.workflow.execution import OrderContext, execute
from llm_trader.workflow.orders import Placed
from tests.exchange.signatures import KEY_VARIABLES
from tests.workflow.builders import SYMBOL, decision_of
from tests.workflow.exchange.accounts import account_config

CONFIG = ExecutionConfig(size_pct=10)


def real_broker(url: str, venue: str, journal: Path) -> ExchangeBroker:
    config = replace(account_config(url, journal), receive_window_s=1.0)
    clock = WallClock(lambda: round(time.time() * 1000))
    return open_exchange_broker(venue, config, KEY_VARIABLES, clock, symbols=[SYMBOL])


async def run(broker: ExchangeBroker, number: int) -> bool:
    """False where it must be started again."""
    try:
        if (await broker.reconcile(SYMBOL)).unknown:
            return False
        context = OrderContext(run_id=str(number), symbol=SYMBOL, now_ms=round(time.time() * 1000))
        done = await execute(decision_of(1 if number % 2 else -1), broker, context, CONFIG)
    except ExchangeError:
        return False
    return all(isinstance(result, Placed) for result in done.results)


async def trade(url: str, venue: str, journal: Path, number: int) -> None:
    broker = real_broker(url, venue, journal)
    await broker.connect()
    while True:
        if await run(broker, number):
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()
            number += 1


if __name__ == "__main__":
    asyncio.run(trade(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])))
