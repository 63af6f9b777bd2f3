"""The broker that the settings name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_trader.clock import Clock
from llm_trader.errors import ConfigurationError
from llm_trader.workflow.broker import Broker
from llm_trader.workflow.config import PaperConfig, WorkflowConfig
from llm_trader.workflow.exchange.opening import open_exchange_broker
from llm_trader.workflow.instrument_file import instruments_of
from llm_trader.workflow.kill_switch import KillSwitch
from llm_trader.workflow.moved_files import refuse_old_place
from llm_trader.workflow.paper.broker import PaperBroker
from llm_trader.workflow.paper.ledger import Ledger


async def open_broker(
    config: WorkflowConfig,
    environ: Mapping[str, str],
    clock: Clock,
    *,
    live_flag: bool = False,
    symbols: Sequence[str] = (),
) -> Broker:
    """Connected, and ready to be reconciled. The flag --live is refused for paper.

    Raises `ConfigurationError` for settings that cannot be used, and `ExchangeError` where the
    exchange does not answer.
    """
    refuse_old_place(config.guards.kill_switch)
    if config.broker == "paper":
        if live_flag:
            raise ConfigurationError(
                '--live needs workflow.broker = "binance" or "bybit"; this one trades on paper'
            )
        return open_paper_broker(config.paper, clock)
    exchange = open_exchange_broker(
        config.broker,
        config.exchange,
        environ,
        clock,
        live_flag=live_flag,
        symbols=symbols,
        stop_reason=KillSwitch(config.guards.kill_switch).reason,
    )
    await exchange.connect()
    return exchange


def open_paper_broker(config: PaperConfig, clock: Clock) -> PaperBroker:
    """Who has it feeds it prices: `on_price`, `on_candle`, `on_funding`, or a `MarketFeed`."""
    refuse_old_place(config.ledger)
    instruments = instruments_of(config.instruments)
    return PaperBroker(Ledger(config.ledger), config, instruments, now_ms=clock.now_ms())
