"""Notes each order before it is sent, and what became of it, in SQLite.

A row is on disk before its request leaves. Whoever finds a row without an end, in this process or
another, after a crash or beside a stalled one, waits until the exchange would refuse the request
(`receive_window_s`), and asks what became of it; only then may it be sent again.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from llm_trader.storage.sqlite_file import SqliteFile, SqliteFormat
from llm_trader.timeframe import Millis
from llm_trader.workflow.orders import ZERO, OrderIntent, OrderResult

# `sending`: on its way, or its sender died. `unknown`: its sender does not know. `void`: it never
# arrived and never will, so its run may send it again.
State = Literal["sending", "unknown", "void", "placed", "rejected"]

_BY_TIME: Final = "sent_ms, client_order_id"
_TABLES: Final = """
CREATE TABLE orders (
  client_order_id TEXT PRIMARY KEY, symbol TEXT NOT NULL, state TEXT NOT NULL,
  sent_ms INTEGER NOT NULL, sendings INTEGER NOT NULL, intent TEXT NOT NULL, result TEXT
) STRICT;
CREATE INDEX unsettled_orders ON orders(symbol) WHERE state IN ('sending', 'unknown');
CREATE TABLE positions (
  symbol TEXT PRIMARY KEY, quantity TEXT NOT NULL, client_order_id TEXT
) STRICT;
"""
_FORMAT: Final = SqliteFormat(
    noun="journal of orders", tables=_TABLES, version=1, setting="workflow.exchange.journal"
)


class OrderNote(msgspec.Struct, frozen=True):
    """A row. Its last request was signed at `sent_ms`, by the exchange's clock."""

    state: State
    sent_ms: Millis
    sendings: int
    intent: OrderIntent
    result: OrderResult | None


class ExpectedPosition(msgspec.Struct, frozen=True):
    """What the exchange should hold by what it said last, and our order that opened it."""

    quantity: Decimal = ZERO
    client_order_id: str | None = None


class OrderJournal:
    """One file, which several processes may have open. Raises as `SqliteFile` does."""

    def __init__(self, path: Path) -> None:
        # Durable: a loss of power must not lose an order that was sent.
        self._file = SqliteFile(path, _FORMAT, durable=True)

    def close(self) -> None:
        self._file.close()

    def order(self, client_order_id: str) -> OrderNote | None:
        rows = self._rows("WHERE client_order_id = ?", (client_order_id,))
        return rows[0] if rows else None

    def unsettled(self, symbol: str) -> list[OrderNote]:
        return self._rows("WHERE symbol = ? AND state IN ('sending', 'unknown')", (symbol,))

    def newest(self, symbol: str | None, limit: int) -> list[OrderNote]:
        """Newest first; of all symbols where none is named."""
        return self._rows(
            "WHERE ?1 IS NULL OR symbol = ?1", (symbol, limit), "sent_ms DESC LIMIT ?2"
        )

    def count(self, symbol: str | None, *states: State) -> int:
        """Of a symbol or all; in some states or any."""
        marks = ", ".join("?" * len(states)) or "state"
        condition = f"symbol = coalesce(?, symbol) AND state IN ({marks})"
        rows = self._file.execute(
            f"SELECT count(*) FROM orders WHERE {condition}",  # noqa: S608
            (symbol, *states),
        )
        return int(rows[0][0])

    def _rows(
        self, condition: str, values: tuple[Any, ...], order: str = _BY_TIME
    ) -> list[OrderNote]:
        rows = self._file.execute(
            f"SELECT state, sent_ms, sendings, intent, result FROM orders {condition} "  # noqa: S608
            f"ORDER BY {order}",
            values,
        )
        return [
            OrderNote(
                state,
                sent_ms,
                sendings,
                msgspec.json.decode(intent, type=OrderIntent),
                None if result is None else msgspec.json.decode(result, type=OrderResult),
            )
            for state, sent_ms, sendings, intent, result in rows
        ]

    def claim(self, intent: OrderIntent, now_ms: Millis, *, void_before_ms: Millis) -> int:
        """The number of the sending that the caller may do now, from 1; 0 where it may not send.

        Nobody else may send until the request is void.

        A request that was signed before `void_before_ms` cannot arrive any more, nor one whose
        order is noted as void.
        """
        values = (intent.client_order_id, intent.symbol, now_ms, _encoded(intent), void_before_ms)
        with self._file.write():
            claimed = self._file.execute(
                "INSERT INTO orders VALUES (?1, ?2, 'sending', ?3, 1, ?4, NULL) "
                "ON CONFLICT (client_order_id) DO UPDATE "
                "SET state = 'sending', sent_ms = ?3, sendings = sendings + 1 "
                "WHERE state = 'void' OR (state IN ('sending', 'unknown') AND sent_ms < ?5) "
                "RETURNING sendings",
                values,
            )
        return int(claimed[0][0]) if claimed else 0

    def note(
        self,
        client_order_id: str,
        state: State,
        result: OrderResult,
        *,
        sending: int | None = None,
    ) -> bool:
        """What became of an order. That it is unknown says nothing new of one that has an end.

        What is true of one `sending` alone is not noted, and False, where the order was sent again:
        the other request may still arrive.
        """
        with self._file.write():
            noted = self._file.execute(
                "UPDATE orders SET state = ?1, result = ?2 WHERE client_order_id = ?3 "
                "AND (?1 != 'unknown' OR state IN ('sending', 'unknown')) "
                "AND (?4 IS NULL OR (sendings = ?4 AND state IN ('sending', 'unknown', 'void'))) "
                "RETURNING 1",
                (state, _encoded(result), client_order_id, sending),
            )
        return bool(noted)

    def expected(self, symbol: str) -> ExpectedPosition:
        rows = self._file.execute(
            "SELECT quantity, client_order_id FROM positions WHERE symbol = ?", (symbol,)
        )
        return ExpectedPosition(Decimal(rows[0][0]), rows[0][1]) if rows else ExpectedPosition()

    def expect(self, symbol: str, expected: ExpectedPosition) -> None:
        with self._file.write():
            self._file.execute(
                "INSERT INTO positions VALUES (?, ?, ?) ON CONFLICT (symbol) DO UPDATE "
                "SET quantity = excluded.quantity, client_order_id = excluded.client_order_id",
                (symbol, f"{expected.quantity:f}", expected.client_order_id),
            )


def _encoded(value: OrderIntent | OrderResult) -> str:
    return msgspec.json.encode(value).decode()
