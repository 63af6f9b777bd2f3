"""A broker at the fake exchange, within a test and without waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from llm_trader.clock import Clock
from llm_trader.timeframe import Millis
from llm_trader.workflow.config import ExchangeAccountConfig
from llm_trader.workflow.exchange.broker import ExchangeBroker
from llm_trader.workflow.exchange.journal import OrderJournal
from llm_trader.workflow.exchange.opening import open_exchange_broker
from llm_trader.workflow.exchange.venue import AccountVenue
from tests.exchange.accounts import Account
from tests.exchange.server import FakeExchange
from tests.exchange.signatures import KEY_VARIABLES

WINDOW_MS = 5000


@dataclass(frozen=True)
class ExchangeTime(Clock):
    """Sleeping moves the clock of the exchange."""

    exchange: FakeExchange

    def now_ms(self) -> Millis:
        return self.exchange.market.now_ms

    async def sleep(self, seconds: float) -> None:
        market = self.exchange.market
        market.now_ms = market.now_ms - market.skew_ms + round(seconds * 1000)
        await asyncio.sleep(0)


def account_config(exchange_url: str, journal: Path) -> ExchangeAccountConfig:
    return ExchangeAccountConfig(
        api_key_env="FAKE_API_KEY",
        api_secret_env="FAKE_API_SECRET",
        binance_url=exchange_url,
        bybit_url=exchange_url,
        journal=journal,
    )


def clock_options(exchange: FakeExchange) -> dict[str, Any]:
    """The clock of the exchange stands still, so what asks it may not read that of the machine."""
    return {
        "sleep": ExchangeTime(exchange).sleep,
        "rng": Random(1),
        "wall_clock": lambda: exchange.market.now_ms / 1000,
    }


def opened_broker(exchange: FakeExchange, venue: str, journal: Path) -> ExchangeBroker:
    """By the settings, as a program opens it. ccxt takes a third of a second for that."""
    time, options = ExchangeTime(exchange), clock_options(exchange)
    config = account_config(exchange.url, journal)
    broker = open_exchange_broker(venue, config, KEY_VARIABLES, time, **options)
    # ccxt spaces requests for the real venue.
    broker._venue._client._exchange.enableRateLimit = False  # type: ignore[attr-defined]
    return broker


def broker_of(
    venue: AccountVenue, exchange: FakeExchange, journal: Path, **options: Any
) -> ExchangeBroker:
    """One that shares its connection with others, as if it were another process."""
    return ExchangeBroker(
        venue, OrderJournal(journal), ExchangeTime(exchange), receive_window_ms=WINDOW_MS, **options
    )


@contextmanager
def fresh_account(exchange: FakeExchange, now_ms: Millis) -> Iterator[Account]:
    """An exchange that was used before is as if nothing had happened."""
    exchange.market.account = Account()
    exchange.market.now_ms = now_ms
    exchange.faults.waiting.clear()
    exchange.faults.left = 0
    exchange._late.clear()
    yield exchange.market.account
