"""A recorded call, and its row in the database."""

from __future__ import annotations

import sqlite3
import zlib
from decimal import Decimal
from typing import Final, Literal

import msgspec

from llm_trader.llm.providers.protocol import LlmReply, LlmRequest, ProviderError, TokenUsage
from llm_trader.timeframe import Millis

State = Literal["started", "replied", "failed", "refused", "lost"]

_NANO: Final = 10**9


class CallFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a call came to nothing: a kind of `ProviderError`, or `budget`, `unended`, `under_way`,
    `cancelled` and `internal`, which are ours.
    """

    kind: str
    message: str
    attempts: int = 0
    latency_ms: float = 0.0
    usage: TokenUsage | None = None
    unanswered: int = 0


class RecordedCall(msgspec.Struct, frozen=True, kw_only=True):
    """`cost_usd` is unknown while nobody knows the end; then `reserved_usd` counts as spent.

    `reply` stands in calls that `replied`, `failure` in those that `failed` or were `refused`.
    """

    id: int
    request_hash: str
    request: LlmRequest
    symbol: str
    state: State
    started_at_ms: Millis
    ended_at_ms: Millis | None
    reserved_usd: float
    cost_usd: float | None
    reply: LlmReply | None
    failure: CallFailure | None

    @property
    def latency_ms(self) -> float:
        end = self.reply or self.failure
        return end.latency_ms if end else 0.0

    @property
    def attempts(self) -> int:
        end = self.reply or self.failure
        return end.attempts if end else 0

    @property
    def usage(self) -> TokenUsage | None:
        end = self.reply or self.failure
        return end.usage if end else None


def failure_of(error: ProviderError) -> CallFailure:
    return CallFailure(
        kind=error.kind,
        message=error.message,
        attempts=error.attempts,
        latency_ms=error.latency_ms,
        usage=error.usage,
        unanswered=error.unanswered,
    )


def nano_of(usd: Decimal) -> int:
    return int((usd * _NANO).to_integral_value())


def usd_of(nano: int) -> Decimal:
    return Decimal(nano) / _NANO


def json_of(value: LlmReply | CallFailure | None) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def newest_call(connection: sqlite3.Connection, digest: str, states: str) -> RecordedCall | None:
    row = connection.execute(
        f"SELECT id FROM calls WHERE request_hash = ? AND state {states} ORDER BY id DESC LIMIT 1",
        (digest,),
    ).fetchone()
    return None if row is None else read_call(connection, row["id"])


def read_call(connection: sqlite3.Connection, call_id: int) -> RecordedCall:
    row = connection.execute(
        "SELECT calls.*, requests.request FROM calls JOIN requests ON hash = request_hash"
        " WHERE id = ?",
        (call_id,),
    ).fetchone()
    cost = row["cost_nano_usd"]
    reply, failure = row["reply"], row["failure"]
    return RecordedCall(
        id=row["id"],
        request_hash=row["request_hash"],
        request=msgspec.json.decode(zlib.decompress(row["request"]), type=LlmRequest),
        symbol=row["symbol"],
        state=row["state"],
        started_at_ms=row["started_at_ms"],
        ended_at_ms=row["ended_at_ms"],
        reserved_usd=row["reserved_nano_usd"] / _NANO,
        cost_usd=None if cost is None else cost / _NANO,
        reply=None if reply is None else msgspec.json.decode(reply, type=LlmReply),
        failure=None if failure is None else msgspec.json.decode(failure, type=CallFailure),
    )
