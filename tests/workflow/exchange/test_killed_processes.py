"""Processes that are killed while their orders are on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

import tests
from llm_trader.workflow.orders import client_order_id, is_our_order_id
from tests.exchange.accounts import Account
from tests.exchange.clock import SimulatedClock
from tests.exchange.server import FakeExchange
from tests.workflow.builders import SYMBOL
from tests.workflow.exchange.trading_process import real_broker, run

PROJECT = Path(tests.__file__).parents[1]
KILLS = 12


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_a_killed_process_is_followed_by_one_that_orders_nothing_twice_and_forgets_nothing(
    running_exchange: FakeExchange, venue: str, tmp_path: Path
) -> None:
    market, draw, journal = running_exchange.market, Random(3), tmp_path / "orders.sqlite"
    before, market.account = market.clock, Account()
    market.clock = SimulatedClock.starting(round(time.time() * 1000))
    running_exchange.delay_s = 0.02
    try:
        number = 0
        for _ in range(KILLS):
            number = run_and_kill(running_exchange.url, venue, journal, number, draw.random())
        broker = real_broker(running_exchange.url, venue, journal)
        await broker.connect()
        while not await run(broker, number):
            pass
        orders = Counter(o.client_id for o in market.account.orders)
        ours = {order_id: n for order_id, n in orders.items() if is_our_order_id(order_id)}
        wanted = {client_order_id(str(n), SYMBOL, "o") for n in range(number + 1)}
        assert set(ours.values()) == {1}
        assert wanted <= ours.keys()
        position = await broker.position(SYMBOL)
        assert position.quantity == market.account.position(SYMBOL).quantity
        assert position.side == (1 if number % 2 else -1)
        assert position.stop_price is not None
        await broker.close()
    finally:
        market.clock, running_exchange.delay_s = before, 0.0


def run_and_kill(url: str, venue: str, journal: Path, first: int, share: float) -> int:
    """The number of the run that follows the last one that ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.workflow.exchange.trading_process", url, venue,
         str(journal), str(first)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
             "NO_PROXY": "127.0.0.1"},
    )  # fmt: skip
    assert process.stdout is not None
    # Between the numbers are lines of the log.
    numbers = (int(line) for line in process.stdout if line.strip().isdigit())
    done = next(numbers)
    time.sleep(share)
    process.send_signal(signal.SIGKILL)
    done = max([done, *numbers])
    process.stdout.close()
    assert process.wait(10) == -signal.SIGKILL
    return done + 1
