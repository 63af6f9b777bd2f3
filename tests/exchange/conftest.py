"""An exchange whose clock stands but where a test moves it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llm_trader.market.simulation import simulate
from tests.exchange.hearing import NOW_MS, SYMBOL
from tests.exchange.listings import Listing, listing_of
from tests.exchange.server import FakeExchange
from tests.market.builders import START_MS


@pytest.fixture(scope="package")
def histories() -> list[Any]:
    return [simulate(symbol, start_ms=START_MS, days=2, seed=3) for symbol in (SYMBOL, "ETHUSDT")]


@pytest.fixture
def listings(histories: list[Any]) -> list[Listing]:
    return [listing_of(history) for history in histories]


@pytest.fixture
def exchange(listings: list[Listing]) -> Iterator[FakeExchange]:
    with FakeExchange(listings, NOW_MS, updates_per_candle=6) as running:
        yield running
