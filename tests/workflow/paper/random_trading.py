"""Random trading on paper; `python -m` runs it as a process that a test kills.

A step is decided by its number and the seed alone, so a process that goes on where another was
killed comes to the same.
"""

from __future__ import annotations

import asyncio
import sys
from decimal import Decimal
from pathlib import Path
from random import Random

from llm_trader.workflow.config import PaperConfig
from llm_trader.workflow.orders import OrderIntent, client_order_id
from llm_trader.workflow.paper.broker import PaperBroker
from llm_trader.workflow.paper.ledger import Ledger
from tests.workflow.builders import START_MS, bitcoin_steps

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
CONFIG = PaperConfig(leverage=20, maintenance_margin_pct=1, deposit=1_000_000)
MINUTE_MS = 60_000


def random_broker(ledger: Ledger) -> PaperBroker:
    return PaperBroker(ledger, CONFIG, bitcoin_steps, now_ms=START_MS)


async def step(broker: PaperBroker, number: int, seed: int) -> None:
    """A price, mostly an order, sometimes a candle's rest or a settlement, all at random."""
    draw = Random(f"{seed} {number}")
    symbol = SYMBOLS[number % len(SYMBOLS)]
    time_ms = START_MS + number * MINUTE_MS
    price = Decimal(draw.randrange(200_000, 300_000)) / 10
    if number % 100 == 0:  # it loses all it has, again and again
        broker.deposit(time_ms, Decimal(100_000), str(number))
    broker.on_price(symbol, time_ms, price)
    if draw.random() < 0.9:
        await broker.place(_order(draw, symbol, number, time_ms, price))
    if draw.random() < 0.1:
        rate = Decimal(draw.randrange(-3000, 3000)) / 1_000_000
        broker.on_funding(symbol, time_ms + 1, rate, price)
    low, high = price * Decimal(draw.uniform(0.9, 1)), price * Decimal(draw.uniform(1, 1.1))
    broker.on_candle(symbol, time_ms + MINUTE_MS - 1, round(high, 1), round(low, 1), price)


def _order(draw: Random, symbol: str, number: int, time_ms: int, price: Decimal) -> OrderIntent:
    side = draw.choice([1, -1])
    stop, target = (round(price * (1 + side * Decimal(draw.uniform(*span))), 1)
                    for span in ((-0.08, -0.01), (0.01, 0.08)))  # fmt: skip
    kind = draw.choice(["open", "open", "close"])
    protected = kind == "open" and draw.random() < 0.7
    return OrderIntent(
        client_order_id=client_order_id(str(number), symbol, "o"),
        symbol=symbol,
        side="BUY" if side > 0 else "SELL",
        quantity=Decimal(draw.randrange(1, 5000)) / 1000,
        kind=kind,
        created_ms=time_ms + draw.choice([0, 0, 30_000]),
        stop_price=stop if protected else None,
        target_price=target if protected else None,
        close_at_ms=time_ms + 2 * MINUTE_MS if kind == "open" and draw.random() < 0.5 else None,
    )


async def trade(broker: PaperBroker, first: int, end: int, seed: int, *, tell: bool) -> None:
    for number in range(first, end):
        await step(broker, number, seed)
        if tell:
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()


def main() -> None:
    path, first, end, seed = sys.argv[1:]
    broker = random_broker(Ledger(Path(path), durable=False))
    asyncio.run(trade(broker, int(first), int(end), int(seed), tell=True))


if __name__ == "__main__":
    main()
