from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from llm_trader.market.simulation import simulate
from llm_trader.workflow.exchange.broker import ExchangeBroker
from llm_trader.workflow.exchange.venue import AccountVenue
from tests.exchange.accounts import Account
from tests.exchange.listings import listing_of
from tests.exchange.server import FakeExchange
from tests.workflow.builders import START_MS
from tests.workflow.exchange.accounts import broker_of, fresh_account, opened_broker

pytest.importorskip("ccxt")


@pytest.fixture(scope="package")
def running_exchange() -> Iterator[FakeExchange]:
    listings = [
        listing_of(simulate(symbol, start_ms=START_MS, days=1, seed=3))
        for symbol in ("BTCUSDT", "ETHUSDT")
    ]
    with FakeExchange(listings, START_MS) as exchange:
        yield exchange


@pytest.fixture
def account(running_exchange: FakeExchange) -> Iterator[Account]:
    with fresh_account(running_exchange, START_MS) as account:
        yield account


@pytest.fixture
def exchange(running_exchange: FakeExchange, account: Account) -> FakeExchange:
    return running_exchange


@pytest.fixture(params=["binance", "bybit"])
def venue(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def connections(
    running_exchange: FakeExchange, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, AccountVenue]]:
    """Connected accounts, which tests share: to open one takes long."""
    folder = tmp_path_factory.mktemp("connections")
    with fresh_account(running_exchange, START_MS):
        brokers = {
            name: opened_broker(running_exchange, name, folder / name)
            for name in ("binance", "bybit")
        }
        for broker in brokers.values():
            await broker.connect()
    yield {name: broker._venue for name, broker in brokers.items()}
    for broker in brokers.values():
        await broker.close()


@pytest.fixture
def connection(venue: str, connections: dict[str, AccountVenue]) -> AccountVenue:
    return connections[venue]


@pytest.fixture
def broker(
    connection: AccountVenue, exchange: FakeExchange, tmp_path: Path
) -> Iterator[ExchangeBroker]:
    broker = broker_of(connection, exchange, tmp_path / "orders.sqlite")
    yield broker
    broker._journal.close()
