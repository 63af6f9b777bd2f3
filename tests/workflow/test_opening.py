from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llm_trader.clock import WallClock
from llm_trader.errors import ConfigurationError
from llm_trader.workflow.config import ExchangeAccountConfig, PaperConfig, WorkflowConfig
from llm_trader.workflow.exchange.opening import open_exchange_broker
from llm_trader.workflow.instrument_file import instruments_of, write_instruments
from llm_trader.workflow.opening import open_broker
from tests.workflow.builders import START_MS, SYMBOL, bitcoin_steps

CLOCK = WallClock(lambda: START_MS)
KEYS = {"KEY": "k", "SECRET": "s"}


def exchange_config(**changes: Any) -> ExchangeAccountConfig:
    return ExchangeAccountConfig(**{"api_key_env": "KEY", "api_secret_env": "SECRET", **changes})


@pytest.mark.parametrize(
    ("config", "live", "message"),
    [
        ({"live": True}, False, "lacks --live"),
        ({}, True, "needs workflow.exchange.live = true"),
        ({"api_key_env": None}, False, "workflow.exchange.api_key_env is not set"),
        ({"api_secret_env": "OTHER"}, False, "environment variable OTHER .* is empty"),
    ],
)
def test_an_account_at_an_exchange_needs_keys_and_says_live_twice_or_never(
    config: dict[str, Any], live: bool, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        open_exchange_broker("binance", exchange_config(**config), KEYS, CLOCK, live_flag=live)


@pytest.mark.parametrize(
    ("venue", "live", "host"),
    [
        ("binance", False, "https://demo-fapi.binance.com/"),
        ("binance", True, "https://fapi.binance.com/"),
        ("bybit", False, "https://api-demo.bybit.com"),
        ("bybit", True, "https://api.bybit.com"),
    ],
)
async def test_real_money_is_traded_where_live_stands_twice_and_else_the_demo_account(
    venue: str, live: bool, host: str, tmp_path: Path
) -> None:
    pytest.importorskip("ccxt")
    config = exchange_config(live=live, journal=tmp_path / "orders.sqlite")
    broker = open_exchange_broker(venue, config, KEYS, CLOCK, live_flag=live)
    urls = broker._venue._client._exchange.urls["api"]  # type: ignore[attr-defined]
    names = ("fapiPrivate", "fapiPrivateV3", "fapiPublic") if venue == "binance" else (
        "private", "public")  # fmt: skip
    assert all(urls[name].startswith(host) for name in names)
    await broker.close()


async def test_keys_are_in_no_text_of_an_error_or_a_broker(tmp_path: Path) -> None:
    pytest.importorskip("ccxt")
    keys = {"KEY": "the-very-key", "SECRET": "the-very-secret"}
    config = exchange_config(
        journal=tmp_path / "orders.sqlite", binance_url="http://127.0.0.1:9", timeout_s=0.5
    )
    broker = open_exchange_broker(
        "binance", config, keys, CLOCK, sleep=lambda _: _nothing(), wall_clock=lambda: 1.7e9
    )
    with pytest.raises(Exception, match="did not answer") as raised:
        await broker.balance()
    await broker.close()
    for secret in keys.values():
        assert (
            secret not in f"{raised.value!r} {raised.value.__dict__} {broker!r} {broker._venue!r}"
        )


async def _nothing() -> None: ...


async def test_the_default_broker_trades_on_paper_by_the_rules_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "instruments.json"
    write_instruments(path, [bitcoin_steps(SYMBOL)])
    paper = PaperConfig(ledger=tmp_path / "paper.sqlite", instruments=path)
    broker = await open_broker(WorkflowConfig(paper=paper), {}, CLOCK)
    assert broker.name == "paper"
    assert await broker.instrument(SYMBOL) == bitcoin_steps(SYMBOL)
    assert (await broker.instrument("ETHUSDT")).min_notional == 0
    assert (await broker.balance()).equity == Decimal(10_000)
    await broker.close()
    with pytest.raises(ConfigurationError, match="trades on paper"):
        await open_broker(WorkflowConfig(paper=paper), {}, CLOCK, live_flag=True)


def test_a_file_that_has_no_rules_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "instruments.json"
    with pytest.raises(ConfigurationError, match="cannot read"):
        instruments_of(path)
    for text in ("{}", '[{"symbol": "X", "quantity_step": "0"}]', "["):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match="no list of contracts"):
            instruments_of(path)
