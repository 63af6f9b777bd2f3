"""Notes each order before it is sent, and what became of it, in SQLite.

A row is on disk before its request leaves. Whoever finds a row without an end, in this process or
another, after a crash or beside a stalled one, waits until the exchange would refuse the request
(`receive_window_s`), and asks what became of it; only then may it be sent again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from llm_trader.errors import ConfigurationError, StoreError
from llm_trader.storage.files import write_errors
from llm_trader.timeframe import Millis
from llm_trader.workflow.orders import ZERO, OrderIntent, OrderResult

# `sending`: on its way, or its sender died. `unknown`: its sender does not know. `void`: it never
# arrived and never will, so its run may send it again.
State = Literal["sending", "unknown", "void", "placed", "rejected"]

_VERSION: Final = 1
_BUSY_S: Final = 10.0
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
    """One file, which several processes may have open. Raises `ConfigurationError` where it cannot
    be made, and `StoreError` where it is no journal.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with write_errors(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            # A loss of power must not lose an order that was sent.
            self._db.execute("PRAGMA synchronous=FULL")
            self._prepare()
        except sqlite3.OperationalError as error:
            raise ConfigurationError(
                f"the journal of orders {path} cannot be opened: {error}; name another file"
            ) from error
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{path} is no journal of this program: {error}") from error

    def _prepare(self) -> None:
        self._db.execute("SELECT count(*) FROM sqlite_master")  # fails where it is no database
        with self._transaction():
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _TABLES.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={_VERSION}")
            elif version != _VERSION:
                raise StoreError(
                    f"{self.path} is a journal of version {version}, and this program reads "
                    f"{_VERSION}; use the program that wrote it"
                )

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._as_store_errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _as_store_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(
                f"the journal {self.path} cannot be read or written: {error}; look at its disk"
            ) from error

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
        with self._as_store_errors():
            found = self._db.execute(
                f"SELECT count(*) FROM orders WHERE {condition}",  # noqa: S608
                (symbol, *states),
            ).fetchone()
        return int(found[0])

    def _rows(
        self, condition: str, values: tuple[Any, ...], order: str = _BY_TIME
    ) -> list[OrderNote]:
        with self._as_store_errors():
            rows = self._db.execute(
                f"SELECT state, sent_ms, sendings, intent, result FROM orders {condition} "  # noqa: S608
                f"ORDER BY {order}",
                values,
            ).fetchall()
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

    def claim(self, intent: OrderIntent, now_ms: Millis, *, void_before_ms: Millis) -> bool:
        """Whether the caller may send an order now; True at most once until its request is void.

        A request that was signed before `void_before_ms` cannot arrive any more, nor one whose
        order is noted as void.
        """
        values = (intent.client_order_id, intent.symbol, now_ms, _encoded(intent), void_before_ms)
        with self._transaction():
            claimed = self._db.execute(
                "INSERT INTO orders VALUES (?1, ?2, 'sending', ?3, 1, ?4, NULL) "
                "ON CONFLICT (client_order_id) DO UPDATE "
                "SET state = 'sending', sent_ms = ?3, sendings = sendings + 1 "
                "WHERE state = 'void' OR (state IN ('sending', 'unknown') AND sent_ms < ?5) "
                "RETURNING 1",
                values,
            ).fetchall()
        return bool(claimed)

    def note(self, client_order_id: str, state: State, result: OrderResult) -> None:
        """What became of an order. That it is unknown says nothing new of one that has an end."""
        with self._transaction():
            self._db.execute(
                "UPDATE orders SET state = ?1, result = ?2 WHERE client_order_id = ?3 "
                "AND (?1 != 'unknown' OR state IN ('sending', 'unknown'))",
                (state, _encoded(result), client_order_id),
            )

    def expected(self, symbol: str) -> ExpectedPosition:
        with self._as_store_errors():
            rows = self._db.execute(
                "SELECT quantity, client_order_id FROM positions WHERE symbol = ?", (symbol,)
            ).fetchall()
        return ExpectedPosition(Decimal(rows[0][0]), rows[0][1]) if rows else ExpectedPosition()

    def expect(self, symbol: str, expected: ExpectedPosition) -> None:
        with self._transaction():
            self._db.execute(
                "INSERT INTO positions VALUES (?, ?, ?) ON CONFLICT (symbol) DO UPDATE "
                "SET quantity = excluded.quantity, client_order_id = excluded.client_order_id",
                (symbol, f"{expected.quantity:f}", expected.client_order_id),
            )


def _encoded(value: OrderIntent | OrderResult) -> str:
    return msgspec.json.encode(value).decode()
