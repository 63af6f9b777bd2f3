"""Whatever is lost, late or dies: no order twice, and the position that the exchange has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest

from llm_trader.errors import ExchangeError
from llm_trader.workflow.config import ExecutionConfig
from llm_trader.workflow.exchange.broker import ExchangeBroker
from llm_trader.workflow.exchange.venue import AccountVenue, with_role
from llm_trader.workflow.execution import OrderContext, execute
from llm_trader.workflow.orders import Placed, Rejected, is_our_order_id
from tests.exchange.accounts import Account
from tests.exchange.faults import Kind
from tests.exchange.server import FakeExchange
from tests.workflow.builders import START_MS, SYMBOL, decision_of
from tests.workflow.exchange.accounts import broker_of, fresh_account

pytestmark = pytest.mark.asyncio(loop_scope="package")

FAULTS: tuple[Kind, ...] = (
    "disconnect", "cut_off", "damaged", "server_error", "bad_gateway", "lost_request",
    "late_request", "late_request", "late_request", "late_request",
)  # fmt: skip
DECISIONS = 5
ORDERS = {"binance": "/fapi/v1/order", "bybit": "/v5/order/create"}


class DeathError(BaseException):
    """The process dies; nothing in it can catch that."""


class DyingVenue:
    """Dies before or after one of its calls, chosen by its number."""

    def __init__(self, venue: AccountVenue, draw: Random, *, share: float) -> None:
        self._venue = venue
        self._draw = draw
        self._share = share

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._venue, name)
        if name in ("now_ms", "name"):
            return method

        async def call(*arguments: Any, **named: Any) -> Any:
            if self._draw.random() < self._share:
                raise DeathError
            try:
                return await method(*arguments, **named)
            finally:
                # While it waits for a reply, it dies as well whether one comes or not.
                if self._draw.random() < self._share * (15 if name == "send" else 1):
                    raise DeathError

        return call


@contextmanager
def random_faults(exchange: FakeExchange, draw: Random, share: float) -> Iterator[None]:
    exchange.faults.at_random(10_000, share=share, kinds=FAULTS, seed=draw.randrange(2**32))
    yield
    exchange.faults.left = 0


async def decide(broker: ExchangeBroker, run: str, side: int, exchange: FakeExchange) -> None:
    """What a run does when it is started again: it reconciles, then it executes."""
    if (await broker.reconcile(SYMBOL)).unknown:
        raise ExchangeError("not yet")
    context = OrderContext(run_id=run, symbol=SYMBOL, now_ms=exchange.market.now_ms)
    execution = await execute(decision_of(side), broker, context, ExecutionConfig(size_pct=10))
    if not all(isinstance(result, Placed | Rejected) for result in execution.results):
        raise ExchangeError("not yet")


async def random_run(
    connection: AccountVenue, exchange: FakeExchange, folder: Path, seed: int
) -> Counter[str]:
    # What is decided does not depend on what happens.
    draw, sides, happened = Random(seed), Random(-seed - 1), Counter[str]()
    journal = folder / f"{seed}.sqlite"
    with fresh_account(exchange, START_MS) as account:
        for number in range(DECISIONS):
            account.prices[SYMBOL] = Decimal(draw.randrange(90, 110))
            if draw.random() < 0.3:
                account.fill_shares = [(Decimal("0.5"), draw.choice(["expires", "later"]))]
            if draw.random() < 0.4:  # the rarest by chance, and the worst
                late_ms = draw.choice([500, 2000, 4000])
                path = ORDERS[connection.name]
                exchange.faults.add("late_request", path=path, method="POST", late_ms=late_ms)
            side = sides.choice([1, -1, 1, -1, 0])
            with random_faults(exchange, draw, 0.2):
                for attempt in range(200):
                    dying: Any = DyingVenue(connection, draw, share=0.03 if attempt < 50 else 0)
                    broker = broker_of(dying, exchange, journal)
                    try:
                        await decide(broker, str(number), side, exchange)
                        break
                    except ExchangeError:
                        happened["repeated"] += 1
                    except DeathError:
                        happened["died"] += 1
                    finally:
                        broker._journal.close()
                    exchange.market.now_ms += draw.choice([10, 1000, 9000])
                    if draw.random() < 0.5:
                        account.fill_late(exchange.market.now_ms)
                else:
                    raise AssertionError(f"seed {seed}: run {number} never ended")
            await check(broker_of(connection, exchange, journal), account, seed)
            exchange.market.now_ms += 900_000
            exchange._let_in_late_ones()
            await check(broker_of(connection, exchange, journal), account, seed)
    happened["orders"] = len(account.orders)
    happened["faults"] = exchange.faults.happened
    return happened


async def check(broker: ExchangeBroker, account: Account, seed: int) -> None:
    report = await broker.reconcile(SYMBOL)
    ids = Counter(o.client_id for o in account.orders if is_our_order_id(o.client_id))
    assert not [order_id for order_id, count in ids.items() if count > 1], seed
    assert report.unknown == (), seed
    held = account.position(SYMBOL).quantity
    assert report.position.quantity == held, seed
    assert (report.position.stop_price is not None) == bool(held), seed
    sides = {c.side for c in account.open_conditionals(SYMBOL)}
    assert sides in (set(), {-1 if held > 0 else 1} if held else set()), seed
    # Every order of ours that the exchange has is in the journal, with what it filled.
    for order in account.orders:
        if is_our_order_id(order.client_id):
            note = broker._journal.order(order.client_id)
            assert note is not None, seed
            if isinstance(note.result, Placed):
                assert note.result.filled == order.filled, seed
            else:  # filled, but its stop was refused, so it was closed again
                assert not order.filled or with_role(order.client_id, "x") in ids, seed
    broker._journal.close()


@pytest.mark.parametrize(
    "venue", ["binance", pytest.param("bybit", marks=pytest.mark.soak)], indirect=True
)
@pytest.mark.parametrize("runs", [7, pytest.param(500, marks=pytest.mark.soak)])
@pytest.mark.timeout(1200)
async def test_no_order_is_doubled_or_forgotten_whatever_is_lost_late_or_dies(
    connection: AccountVenue, running_exchange: FakeExchange, tmp_path: Path, runs: int
) -> None:
    happened = Counter[str]()
    for seed in range(runs):
        happened += await random_run(connection, running_exchange, tmp_path, seed)
    assert happened["orders"] > runs * 2
    assert happened["died"] > runs
    assert happened["repeated"] > 0
