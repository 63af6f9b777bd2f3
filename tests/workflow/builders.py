"""Intents, brokers and backtests for tests of the workflow."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from llm_trader.llm.decision import Action, Decision
from llm_trader.market.candles import CandleSeries
from llm_trader.market.samples import FundingSeries
from llm_trader.timeframe import Millis
from llm_trader.workflow.config import ExecutionConfig, PaperConfig
from llm_trader.workflow.execution import OrderContext, execute
from llm_trader.workflow.instrument import InstrumentRules
from llm_trader.workflow.orders import OrderIntent, client_order_id
from llm_trader.workflow.paper.broker import PaperBroker
from llm_trader.workflow.paper.feed import MarketFeed
from llm_trader.workflow.paper.ledger import Ledger

START_MS: Millis = 1_700_006_400_000
SYMBOL = "BTCUSDT"
ACTIONS: dict[int, Action] = {1: "LONG", -1: "SHORT", 0: "HOLD"}
FREE = PaperConfig(taker_fee_bps=0, slippage_bps=0)


def at(minute: float) -> Millis:
    return START_MS + round(minute * 60_000)


def fine_steps(symbol: str) -> InstrumentRules:
    """Steps so small that rounding to them does not matter."""
    return InstrumentRules(symbol=symbol)


def bitcoin_steps(symbol: str) -> InstrumentRules:
    return InstrumentRules(
        symbol=symbol,
        quantity_step=Decimal("0.001"),
        price_tick=Decimal("0.1"),
        min_quantity=Decimal("0.001"),
        min_notional=Decimal(100),
    )


def paper_broker(
    config: PaperConfig = FREE, ledger: Ledger | None = None, steps: Any = fine_steps
) -> PaperBroker:
    return PaperBroker(ledger or Ledger(None), config, steps, now_ms=START_MS, keeps_marks=False)


def intent(run: str, quantity: str | Decimal, minute: float = 0, **fields: Any) -> OrderIntent:
    """A signed quantity opens; `kind="close"` closes."""
    signed = Decimal(quantity)
    given: dict[str, Any] = {"kind": "open", "symbol": SYMBOL, **fields}
    role = "o" if given["kind"] == "open" else "c"
    return OrderIntent(
        client_order_id=client_order_id(run, given["symbol"], role),
        side="BUY" if signed > 0 else "SELL",
        quantity=abs(signed),
        created_ms=at(minute),
        **given,
    )


def decision_of(side: int) -> Decision:
    if side:
        return Decision(ACTIONS[side], None, "the test says so")
    return Decision.hold("model", "the test says so")


class Decided(NamedTuple):
    candles: CandleSeries
    funding: FundingSeries
    time_ms: Sequence[Millis]
    sides: Sequence[int]


async def backtest(decided: Decided, execution: ExecutionConfig, paper: PaperConfig) -> PaperBroker:
    """The path that a live process takes, with stored candles for a market."""
    broker = paper_broker(paper)
    feed = MarketFeed(SYMBOL, decided.candles, decided.funding)
    for time_ms, side in zip(decided.time_ms, decided.sides, strict=True):
        feed.advance(broker, time_ms)
        context = OrderContext(run_id=str(time_ms), symbol=SYMBOL, now_ms=time_ms)
        await execute(decision_of(side), broker, context, execution)
    feed.advance(broker, int(decided.candles.open_time_ms[-1]) + decided.candles.timeframe.ms)
    return broker
