"""The broker of the settings: the demo account's, unless `live` stands twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from llm_trader.clock import Clock
from llm_trader.errors import ConfigurationError
from llm_trader.market.exchange.client import AccountKeys, ExchangeClient
from llm_trader.market.exchange.config import ExchangeConfig
from llm_trader.workflow.config import ExchangeAccountConfig
from llm_trader.workflow.exchange.binance import BinanceAccount
from llm_trader.workflow.exchange.broker import ExchangeBroker
from llm_trader.workflow.exchange.bybit import BybitAccount
from llm_trader.workflow.exchange.journal import OrderJournal
from llm_trader.workflow.exchange.venue import AccountVenue
from llm_trader.workflow.moved_files import refuse_old_place

# Whoever waits for an order does not wait for minutes.
_ATTEMPTS: Final = 3
_LONGEST_WAIT_S: Final = 20.0
_HOSTS: Final = {
    "binance": ("https://fapi.binance.com", "https://demo-fapi.binance.com"),
    "bybit": ("https://api.bybit.com", "https://api-demo.bybit.com"),
}


def open_exchange_broker(
    name: str,
    config: ExchangeAccountConfig,
    environ: Mapping[str, str],
    clock: Clock,
    *,
    live_flag: bool = False,
    symbols: Sequence[str] = (),
    stop_reason: Callable[[], str | None] = lambda: None,
    **client_options: Any,
) -> ExchangeBroker:
    """Not connected yet. Real money is traded where both the setting and the flag say `live`.

    Raises `ConfigurationError` where one of them says so alone, or a key is missing.
    """
    if config.live != live_flag:
        raise ConfigurationError(
            "workflow.exchange.live is true, but the command lacks --live: nothing is traded; give "
            "the flag, or set it to false to trade on the demo account"
            if config.live
            else "--live needs workflow.exchange.live = true in the settings; nothing is traded"
        )
    window_ms = round(config.receive_window_s * 1000)
    account = AccountKeys(
        _secret(environ, config.api_key_env, "api_key_env"),
        _secret(environ, config.api_secret_env, "api_secret_env"),
        demo=not config.live,
        receive_window_ms=window_ms,
    )
    refuse_old_place(config.journal)
    venue = _venue(name, config, account, client_options)
    journal = OrderJournal(config.journal)
    return ExchangeBroker(
        venue,
        journal,
        clock,
        receive_window_ms=window_ms,
        symbols=symbols,
        stop_reason=stop_reason,
    )


def _secret(environ: Mapping[str, str], variable: str | None, setting: str) -> str:
    if variable is None:
        raise ConfigurationError(
            f"workflow.exchange.{setting} is not set; name the environment variable that holds it"
        )
    value = environ.get(variable, "")
    if not value:
        raise ConfigurationError(
            f"the environment variable {variable} of workflow.exchange.{setting} is empty; set it"
        )
    return value


def _venue(
    name: str, config: ExchangeAccountConfig, account: AccountKeys, options: Mapping[str, Any]
) -> AccountVenue:
    if name not in _HOSTS:
        raise ConfigurationError(f"there is no account at {name!r}; take {' or '.join(_HOSTS)}")
    requests = ExchangeConfig(
        timeout_s=config.timeout_s, max_attempts=_ATTEMPTS, max_wait_s=_LONGEST_WAIT_S
    )
    url = config.binance_url if name == "binance" else config.bybit_url
    addresses = dict.fromkeys(_HOSTS[name], url) if url else {}
    if name == "binance":
        library = "binanceusdm"
        client = ExchangeClient(name, library, addresses, requests, account=account, **options)
        return BinanceAccount(client)
    client = ExchangeClient(name, "bybit", addresses, requests, account=account, **options)
    return BybitAccount(client)
