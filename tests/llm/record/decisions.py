"""Decisions to record, and summaries of them."""

from __future__ import annotations

from typing import Any

from llm_trader.llm.decision import Decision
from llm_trader.llm.record.decisions import Costs, DecisionSummary, RecordedDecision
from llm_trader.snapshot.model import MarketSnapshot
from llm_trader.timeframe import Millis
from tests.llm.record.calls import NOON_MS

LONG = Decision("LONG", 0.7, "It rose.")
SHORT = Decision("SHORT", 0.6, "It fell.")
_FREE = Costs()


def recorded(decision: Decision = LONG, **given: Any) -> RecordedDecision:
    fields = {
        "created_at_ms": NOON_MS,
        "origin": "test",
        "symbol": "BTCUSDT",
        "as_of_ms": NOON_MS,
        "arm": "rag",
        "arm_used": "rag",
        "decider": "anthropic/claude",
        "provider": "anthropic",
        "model": "claude",
        "snapshot": MarketSnapshot(symbol="BTCUSDT", timestamp=NOON_MS, price=42_000.0),
        "intraday": "3m",
        "answer": None,
        "match_ids": [],
        "settings_digest": "0123456789ab",
    } | given
    return RecordedDecision(decision=decision, **fields)


def summary(
    number: int,
    decision: Decision = LONG,
    *,
    as_of_ms: Millis = NOON_MS,
    costs: Costs = _FREE,
    **given: Any,
) -> DecisionSummary:
    fields = {
        "created_at_ms": NOON_MS,
        "origin": "test",
        "symbol": "BTCUSDT",
        "arm": "rag",
        "arm_used": "rag",
        "decider": "anthropic/claude",
        "provider": "anthropic",
        "model": "claude",
        "intraday": "3m",
    } | given
    return DecisionSummary(id=number, decision=decision, as_of_ms=as_of_ms, costs=costs, **fields)
