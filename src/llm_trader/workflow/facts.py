"""Asks a broker for what the guards go by. What it does not tell is unknown, and a guard vetoes."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TypeVar

import msgspec
import structlog

from llm_trader.errors import LlmTraderError
from llm_trader.retrieval.answer import Evidence
from llm_trader.timeframe import DAY_MS, SECOND_MS, Millis
from llm_trader.workflow.broker import Broker
from llm_trader.workflow.config import GuardConfig
from llm_trader.workflow.guards import GuardFacts
from llm_trader.workflow.kill_switch import KillSwitch

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class DecidedState(msgspec.Struct, frozen=True, kw_only=True):
    """The state that was decided on. `data_ms` is when its newest candle closed; None is unknown.

    `open_runs` are other runs that decide on the symbol just now.
    """

    symbol: str
    as_of_ms: Millis
    price: float | None
    data_ms: Millis | None
    evidence: Evidence | None = None
    open_runs: Sequence[str] | None = ()


async def collect_facts(
    broker: Broker, state: DecidedState, now_ms: Millis | None, horizon: str, config: GuardConfig
) -> GuardFacts:
    """Reconciles the symbol first, so that what was unknown is settled before anything is traded.

    `horizon` is that of the expected move, such as `4h`.
    """
    symbol, evidence = state.symbol, state.evidence
    reconciled = await _known(broker.reconcile(symbol), "reconciliation", symbol)
    for difference in () if reconciled is None else reconciled.differences:
        _log.warning("position_differs", symbol=symbol, difference=difference)
    fills = None
    if now_ms is not None:
        cooldown_ms = round(config.cooldown_s * SECOND_MS)
        since_ms = min(now_ms - now_ms % DAY_MS, now_ms - cooldown_ms)
        fills = await _known(broker.fills(since_ms), "fills", symbol)
    horizons = {} if evidence is None else evidence.horizons
    novelty = None if evidence is None or evidence.novelty is None else evidence.novelty.percentile
    return GuardFacts(
        symbol=symbol,
        now_ms=now_ms,
        as_of_ms=state.as_of_ms,
        price_then=state.price,
        data_ms=state.data_ms,
        quote=await _known(broker.quote(symbol), "quote", symbol),
        position=None if reconciled is None else reconciled.position,
        balance=await _known(broker.balance(), "balance", symbol),
        exposures=await _known(broker.exposures(), "exposures", symbol),
        fills=fills,
        verdict=None if evidence is None else evidence.verdict,
        novelty=novelty,
        expected_move_pct=(
            horizons[horizon].expected_volatility_pct if horizon in horizons else None
        ),
        open_runs=state.open_runs,
        unknown_orders=None if reconciled is None else reconciled.unknown,
        kill_reason=KillSwitch(config.kill_switch).reason(),
    )


async def _known(question: Awaitable[T], name: str, symbol: str) -> T | None:
    try:
        return await question
    except LlmTraderError as error:
        _log.warning("fact_unknown", fact=name, symbol=symbol, reason=error.message)
        return None
