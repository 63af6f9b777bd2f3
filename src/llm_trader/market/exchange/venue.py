"""What every venue offers, and opening one by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from llm_trader.errors import InvalidInputError
from llm_trader.market.exchange.binance import Binance
from llm_trader.market.exchange.bybit import Bybit
from llm_trader.market.exchange.client import ExchangeClient
from llm_trader.market.exchange.config import VENUES, ExchangeConfig
from llm_trader.market.exchange.instruments import Instrument
from llm_trader.market.exchange.replies import Page
from llm_trader.timeframe import Millis, Timeframe


class Venue(Protocol):
    """Linear perpetual contracts of one exchange.

    A page begins at `start_ms` and its rows lie before `end_ms`; its own `end_ms` says how far the
    exchange has answered, which is further than `start_ms`. Raises `ExchangeError`.
    """

    name: str
    timeframes: Mapping[Timeframe, str]
    open_interest_interval: Timeframe
    # How far back open interest reaches; None where it reaches to the beginning.
    open_interest_reach_ms: Millis | None

    async def now_ms(self) -> Millis: ...

    async def instruments(self) -> list[Instrument]: ...

    async def closed_instruments(self) -> list[Instrument]: ...

    def candle_page_ms(self, timeframe: Timeframe) -> Millis: ...

    async def candles(
        self, symbol: str, timeframe: Timeframe, start_ms: Millis, end_ms: Millis
    ) -> Page: ...

    async def funding(self, instrument: Instrument, start_ms: Millis, end_ms: Millis) -> Page: ...

    async def open_interest(self, symbol: str, start_ms: Millis, end_ms: Millis) -> Page: ...

    async def close(self) -> None: ...


def open_venue(name: str, config: ExchangeConfig, **client_options: Any) -> Venue:
    """A venue by its name; `client_options` are those of `ExchangeClient`."""
    if name == "binance":
        addresses = {"https://fapi.binance.com": config.binance_url} if config.binance_url else {}
        return Binance(ExchangeClient(name, "binanceusdm", addresses, config, **client_options))
    if name == "bybit":
        addresses = {"https://api.bybit.com": config.bybit_url} if config.bybit_url else {}
        return Bybit(ExchangeClient(name, "bybit", addresses, config, **client_options))
    raise InvalidInputError(
        f"no data can be fetched from exchange {name!r}, only from {' and '.join(VENUES)}; files "
        "of others are read by: llm-trader data import"
    )
