"""Every call to a model: on record before it is made, and again before its reply is used.

A call is `started`, then `replied` or `failed`. `refused` ones were never made: by the budget, or
because two calls for the same request have no end already. A `lost` one has no end that anybody
knows: its process died in between, so it may have been paid.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal
from typing import Final

import msgspec

from llm_trader.errors import LlmTraderError
from llm_trader.llm.providers.protocol import LlmReply, LlmRequest, ProviderError
from llm_trader.llm.record.call_rows import (
    CallFailure,
    RecordedCall,
    State,
    failure_of,
    json_of,
    nano_of,
    newest_call,
    read_call,
    usd_of,
)
from llm_trader.llm.record.owners import Owner, is_alive
from llm_trader.llm.record.requests import canonical_json, request_hash
from llm_trader.storage.sqlite_file import SqliteFile
from llm_trader.timeframe import DAY_MS, Millis, midnight_ms, utc_date

# The second time may be the one that kills the process; a third would be paid for nothing.
MOST_UNENDED: Final = 2
_REMOVED: Final = "[removed]"


class Started(msgspec.Struct, frozen=True):
    """The call may be made now; its end must be recorded under this id."""

    call_id: int


class UnderWay(msgspec.Struct, frozen=True):
    """Another process, which lives, is making this call."""

    call_id: int


# Raises `LlmTraderError` with the reason if a day's spending leaves no room for an amount.
CheckBudget = Callable[["Spending", date, Decimal], None]


class Spending:
    """What was spent on a UTC day, within the transaction that is to start a call."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def spent_usd(self, day: date, symbol: str | None = None) -> Decimal:
        """What ended calls cost, and what is reserved of those whose end is unknown."""
        start_ms = midnight_ms(day)
        condition = "" if symbol is None else " AND symbol = ?"
        row = self._connection.execute(
            "SELECT SUM(COALESCE(cost_nano_usd, reserved_nano_usd)) FROM calls"
            f" WHERE started_at_ms >= ? AND started_at_ms < ?{condition}",
            (start_ms, start_ms + DAY_MS, *([] if symbol is None else [symbol])),
        ).fetchone()
        return usd_of(row[0] or 0)


class CallLog:
    """The calls of a record. Every method commits before it returns; threads may share it."""

    def __init__(self, database: SqliteFile, secrets: Sequence[str] = ()) -> None:
        self._database = database
        self._folder = database.path.parent
        self._secrets = [secret for secret in secrets if secret]
        self._owner: Owner | None = None

    def close(self) -> None:
        if self._owner is not None:
            self._owner.release()

    def begin(
        self,
        request: LlmRequest,
        *,
        symbol: str,
        started_at_ms: Millis,
        reserved_usd: Decimal,
        check_budget: CheckBudget | None = None,
        reuse: bool = True,
    ) -> Started | UnderWay | RecordedCall:
        """Start a call, unless the record says that it must not be made.

        The recorded call comes back where the request is answered already, and a refused one where
        two calls were started without an end, or the budget says no. Without `reuse` a request is
        asked again whatever came of it before.
        """
        digest = request_hash(request)
        with self._database.write() as connection:
            if reuse:
                earlier = self._earlier(connection, digest, started_at_ms)
                if earlier is not None:
                    return earlier
            refusal = _over_budget(connection, started_at_ms, reserved_usd, check_budget)
            if reuse and _unended(connection, digest) >= MOST_UNENDED:
                refusal = CallFailure(kind="unended", message=_UNENDED)
            self._insert_request(connection, digest, request)
            call_id = self._insert(connection, digest, request, symbol, started_at_ms, reserved_usd)
            if refusal is None:
                return Started(call_id)
            self._end(connection, call_id, "refused", started_at_ms, Decimal(0), failure=refusal)
            return read_call(connection, call_id)

    def replied(
        self, call_id: int, reply: LlmReply, cost_usd: Decimal | None, ended_at_ms: Millis
    ) -> RecordedCall:
        """Without a cost, because the provider names no tokens, what was reserved counts."""
        with self._database.write() as connection:
            self._end(connection, call_id, "replied", ended_at_ms, cost_usd, reply=reply)
            return read_call(connection, call_id)

    def failed(
        self,
        call_id: int,
        error: ProviderError | CallFailure,
        cost_usd: Decimal | None,
        ended_at_ms: Millis,
    ) -> RecordedCall:
        failure = error if isinstance(error, CallFailure) else failure_of(error)
        with self._database.write() as connection:
            self._end(connection, call_id, "failed", ended_at_ms, cost_usd, failure=failure)
            return read_call(connection, call_id)

    def get(self, call_id: int) -> RecordedCall:
        with self._database.read() as connection:
            return read_call(connection, call_id)

    def find(self, digest: str) -> RecordedCall | None:
        """The newest call that was replied to, by the hash of its request."""
        with self._database.read() as connection:
            return newest_call(connection, digest, "= 'replied'")

    def find_ended(self, digest: str) -> RecordedCall | None:
        """The same, or else the newest one that failed or was refused."""
        with self._database.read() as connection:
            replied = newest_call(connection, digest, "= 'replied'")
            return replied or newest_call(connection, digest, "IN ('failed', 'refused')")

    def newest(self, model: str | None = None) -> RecordedCall | None:
        """The newest call that was replied to, of a model or of any."""
        condition = "" if model is None else " AND model = ?"
        with self._database.read() as connection:
            row = connection.execute(
                f"SELECT id FROM calls WHERE state = 'replied'{condition} ORDER BY id DESC LIMIT 1",
                [] if model is None else [model],
            ).fetchone()
            return None if row is None else read_call(connection, row["id"])

    def spent_usd(self, day: date, symbol: str | None = None) -> Decimal:
        with self._database.read() as connection:
            return Spending(connection).spent_usd(day, symbol)

    def _earlier(
        self, connection: sqlite3.Connection, digest: str, now_ms: Millis
    ) -> RecordedCall | UnderWay | None:
        """What came, or is coming, of the same request; calls of the dead become `lost`."""
        replied = newest_call(connection, digest, "= 'replied'")
        if replied is not None:
            return replied
        rows = connection.execute(
            "SELECT id, owner FROM calls WHERE request_hash = ? AND state = 'started'", (digest,)
        ).fetchall()
        for row in rows:
            if is_alive(self._folder, row["owner"]):
                return UnderWay(row["id"])
            connection.execute(
                "UPDATE calls SET state = 'lost', ended_at_ms = ? WHERE id = ?", (now_ms, row["id"])
            )
        return None

    def _insert_request(
        self, connection: sqlite3.Connection, digest: str, request: LlmRequest
    ) -> None:
        connection.execute(
            "INSERT OR IGNORE INTO requests VALUES (?, ?)",
            (digest, zlib.compress(canonical_json(request))),
        )

    def _insert(
        self,
        connection: sqlite3.Connection,
        digest: str,
        request: LlmRequest,
        symbol: str,
        started_at_ms: Millis,
        reserved_usd: Decimal,
    ) -> int:
        if self._owner is None:
            self._owner = Owner(self._folder)
        cursor = connection.execute(
            "INSERT INTO calls (request_hash, provider, model, symbol, started_at_ms, owner, state,"
            " reserved_nano_usd) VALUES (?, ?, ?, ?, ?, ?, 'started', ?)",
            (
                *(digest, request.provider, request.model, symbol, started_at_ms),
                *(self._owner.name, nano_of(reserved_usd)),
            ),
        )
        return int(cursor.lastrowid or 0)

    def _end(
        self,
        connection: sqlite3.Connection,
        call_id: int,
        state: State,
        ended_at_ms: Millis,
        cost_usd: Decimal | None,
        *,
        reply: LlmReply | None = None,
        failure: CallFailure | None = None,
    ) -> None:
        if failure is not None:
            failure = msgspec.structs.replace(failure, message=self._cleared(failure.message))
        connection.execute(
            "UPDATE calls SET state = ?, ended_at_ms = ?, cost_nano_usd = ?, reply = ?, failure = ?"
            " WHERE id = ?",
            (
                *(state, ended_at_ms, None if cost_usd is None else nano_of(cost_usd)),
                *(json_of(reply), json_of(failure), call_id),
            ),
        )

    def _cleared(self, message: str) -> str:
        """A provider's error may repeat the key that it refused."""
        for secret in self._secrets:
            message = message.replace(secret, _REMOVED)
        return message


_UNENDED: Final = (
    f"{MOST_UNENDED} calls for this request were started and never ended, because their processes "
    "died; each may have been paid, so a third is not made; llm-trader decide --ask-again makes it"
)


def _unended(connection: sqlite3.Connection, digest: str) -> int:
    row = connection.execute(
        "SELECT COUNT(*) FROM calls WHERE request_hash = ? AND state = 'lost'", (digest,)
    ).fetchone()
    return int(row[0])


def _over_budget(
    connection: sqlite3.Connection,
    now_ms: Millis,
    reserved_usd: Decimal,
    check_budget: CheckBudget | None,
) -> CallFailure | None:
    if check_budget is None:
        return None
    try:
        check_budget(Spending(connection), utc_date(now_ms), reserved_usd)
    except LlmTraderError as error:
        return CallFailure(kind="budget", message=error.message)
    return None
