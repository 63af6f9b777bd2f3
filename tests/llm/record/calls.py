"""Requests, replies and records for tests of the record."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from llm_trader.llm.budget import check_budget
from llm_trader.llm.providers.protocol import LlmReply, LlmRequest, Message, TokenUsage
from llm_trader.llm.record.call_rows import RecordedCall
from llm_trader.llm.record.calls import Spending, Started, UnderWay
from llm_trader.llm.record.record import DecisionRecord
from llm_trader.timeframe import Millis

NOON_MS: Millis = 1_704_110_400_000  # 2024-01-01T12:00Z
TODAY = datetime.date(2024, 1, 1)
RESERVED_USD = Decimal("0.25")


def request(text: str = "What now?", **changes: Any) -> LlmRequest:
    fields = {"provider": "anthropic", "model": "claude", "system": "You trade."} | changes
    return LlmRequest(messages=(Message("user", text),), max_output_tokens=500, **fields)


def reply(text: str = "HOLD") -> LlmReply:
    return LlmReply(
        text=text,
        finish="complete",
        usage=TokenUsage(input_tokens=1000, output_tokens=30),
        model="claude-1",
        response_id="msg_1",
        sdk="anthropic 2.14.0",
        attempts=1,
        latency_ms=812.5,
    )


def begin(
    record: DecisionRecord,
    text: str = "What now?",
    *,
    now_ms: Millis = NOON_MS,
    symbol: str = "BTCUSDT",
    limit_usd: str | None = None,
    reuse: bool = True,
) -> Started | UnderWay | RecordedCall:
    def check(spending: Spending, day: datetime.date, needed_usd: Decimal) -> None:
        check_budget(spending, day, needed_usd=needed_usd, limit_usd=Decimal(limit_usd or "1000"))

    return record.calls.begin(
        request(text),
        symbol=symbol,
        started_at_ms=now_ms,
        reserved_usd=RESERVED_USD,
        check_budget=check,
        reuse=reuse,
    )


def started(record: DecisionRecord, text: str = "What now?", **given: Any) -> int:
    begun = begin(record, text, **given)
    assert isinstance(begun, Started)
    return begun.call_id


def open_record(folder: Path) -> DecisionRecord:
    return DecisionRecord.open(folder)


def spent(record: DecisionRecord, days_later: int = 0) -> Decimal:
    return record.calls.spent_usd(TODAY + datetime.timedelta(days=days_later))
