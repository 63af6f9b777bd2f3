"""Double-entry books in SQLite, and whether they balance.

Whatever changes the account happens in one transaction of SQLite: orders, positions and entries
change together or not at all, whenever the process dies. Amounts are texts, never floats.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from llm_trader.errors import InvalidInputError
from llm_trader.storage.sqlite_file import IN_MEMORY, SqliteFile, SqliteFormat
from llm_trader.timeframe import Millis
from llm_trader.workflow.orders import ZERO
from llm_trader.workflow.paper.accounting import EXACT, Entry

_TABLES: Final = """
CREATE TABLE transactions (
  id INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, kind TEXT NOT NULL, symbol TEXT,
  reference TEXT, UNIQUE (kind, symbol, reference)
) STRICT;
CREATE TABLE entries (
  transaction_id INTEGER NOT NULL REFERENCES transactions(id), account TEXT NOT NULL,
  asset TEXT NOT NULL, amount TEXT NOT NULL
) STRICT;
CREATE INDEX entries_of_a_transaction ON entries(transaction_id);
CREATE TABLE balances (
  account TEXT NOT NULL, asset TEXT NOT NULL, amount TEXT NOT NULL, PRIMARY KEY (account, asset)
) STRICT, WITHOUT ROWID;
CREATE TABLE orders (
  client_order_id TEXT PRIMARY KEY, symbol TEXT NOT NULL, state TEXT NOT NULL,
  intent TEXT NOT NULL, result TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX waiting_orders ON orders(symbol) WHERE state = 'waiting';
CREATE TABLE fills (
  id INTEGER PRIMARY KEY, client_order_id TEXT NOT NULL, symbol TEXT NOT NULL,
  time_ms INTEGER NOT NULL, fill TEXT NOT NULL, position_after TEXT NOT NULL
) STRICT;
CREATE INDEX fills_by_time ON fills(symbol, time_ms);
CREATE TABLE positions (symbol TEXT PRIMARY KEY, holding TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE marks (
  symbol TEXT PRIMARY KEY, time_ms INTEGER NOT NULL, price TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""
LEDGER_FORMAT: Final = SqliteFormat(
    noun="ledger", tables=_TABLES, version=1, setting="workflow.paper.ledger"
)


class LedgerReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `check` found. The books balance where there are no problems."""

    transactions: int
    entries: int
    orders: int
    fills: int
    balances: dict[str, Decimal]
    problems: tuple[str, ...]


class Ledger:
    """One file, which several processes may have open; `None` for a path keeps the books in memory.

    `durable` is that of `SqliteFile`, and so are the errors that it raises.
    """

    def __init__(self, path: Path | None, *, durable: bool = True) -> None:
        self._file = SqliteFile(path or IN_MEMORY, LEDGER_FORMAT, durable=durable)

    def close(self) -> None:
        self._file.close()

    def transaction(self) -> AbstractContextManager[object]:
        """All of it or nothing; one within another is a part of it."""
        return self._file.write()

    def changed_elsewhere(self) -> int:
        """A number that changes when another process or connection has written."""
        if self._file.path == IN_MEMORY:
            return 0  # nobody else can write to these books
        return int(self.execute("PRAGMA data_version")[0][0])

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        return self._file.execute(statement, values)

    def note(self, statement: str, values: Sequence[Any] = ()) -> None:
        """For what a loss of power may undo."""
        self._file.note(statement, values)

    def post(
        self,
        time_ms: Millis,
        kind: str,
        entries: Sequence[Entry],
        *,
        symbol: str | None = None,
        reference: str | None = None,
    ) -> bool:
        """Books a transaction. False where one of this kind, symbol and reference is there already.

        Raises `InvalidInputError` for entries that do not sum to 0; nothing is booked then.
        """
        sums: dict[str, Decimal] = defaultdict(lambda: ZERO)
        for entry in entries:
            sums[entry.asset] = EXACT.add(sums[entry.asset], entry.amount)
        if unbalanced := {asset: total for asset, total in sums.items() if total}:
            raise InvalidInputError(f"{kind} of {symbol}: the entries do not balance: {unbalanced}")
        with self.transaction():
            inserted = self.execute(
                "INSERT INTO transactions (time_ms, kind, symbol, reference) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO NOTHING RETURNING id",
                (time_ms, kind, symbol, reference),
            )
            if not inserted:
                return False
            for entry in entries:
                if entry.amount:
                    self._book(inserted[0]["id"], entry)
        return True

    def _book(self, transaction: int, entry: Entry) -> None:
        balance = EXACT.add(self.balance(entry.account, entry.asset), entry.amount)
        self.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?)",
            (transaction, entry.account, entry.asset, f"{entry.amount:f}"),
        )
        self.execute(
            "INSERT INTO balances VALUES (?, ?, ?) "
            "ON CONFLICT (account, asset) DO UPDATE SET amount = excluded.amount",
            (entry.account, entry.asset, f"{balance:f}"),
        )

    def balance(self, account: str, asset: str) -> Decimal:
        rows = self.execute(
            "SELECT amount FROM balances WHERE account = ? AND asset = ?", (account, asset)
        )
        return Decimal(rows[0][0]) if rows else ZERO

    def check(self) -> LedgerReport:
        """Adds everything up anew from the single entries."""
        with self.transaction():
            problems = [*self._unbalanced(), *self._wrong_balances(), *self._wrong_positions()]
            counts = [
                self.execute(f"SELECT count(*) FROM {table}")[0][0]  # noqa: S608  no input
                for table in ("transactions", "entries", "orders", "fills")
            ]
            balances = {
                f"{account} {asset}": Decimal(amount)
                for account, asset, amount in self.execute("SELECT * FROM balances")
            }
        return LedgerReport(
            transactions=counts[0],
            entries=counts[1],
            orders=counts[2],
            fills=counts[3],
            balances=balances,
            problems=tuple(problems),
        )

    def _unbalanced(self) -> Iterator[str]:
        sums: dict[tuple[int, str], Decimal] = defaultdict(lambda: ZERO)
        for transaction, asset, amount in self.execute(
            "SELECT transaction_id, asset, amount FROM entries"
        ):
            key = (transaction, asset)
            sums[key] = EXACT.add(sums[key], Decimal(amount))
        for (transaction, asset), total in sums.items():
            if total:
                yield f"transaction {transaction} is off by {total:f} {asset}"

    def _wrong_balances(self) -> Iterator[str]:
        sums: dict[tuple[str, str], Decimal] = defaultdict(lambda: ZERO)
        for account, asset, amount in self.execute("SELECT account, asset, amount FROM entries"):
            sums[account, asset] = EXACT.add(sums[account, asset], Decimal(amount))
        for account, asset, amount in self.execute("SELECT * FROM balances"):
            total = sums.pop((account, asset), ZERO)
            if total != Decimal(amount):
                yield f"{account} says {amount} {asset}, and its entries sum to {total:f}"
        for (account, asset), total in sums.items():
            if total:
                yield f"{account} has no balance of {asset}, and its entries sum to {total:f}"

    def _wrong_positions(self) -> Iterator[str]:
        held: dict[str, Decimal] = {}
        for symbol, text in self.execute("SELECT symbol, holding FROM positions"):
            holding = msgspec.json.decode(text)
            held[symbol] = Decimal(holding["quantity"])
            booked = self.balance(f"cost:{symbol}", _currency(self))
            if Decimal(holding["cost"]) != booked:
                yield f"{symbol} cost {holding['cost']} by its position, {booked:f} by the books"
        for account, asset, amount in self.execute(
            "SELECT * FROM balances WHERE account LIKE 'position:%'"
        ):
            if Decimal(amount) != held.pop(asset, ZERO):
                yield f"{account} says {amount}, and the position is another one"
        for symbol in held:
            yield f"the books have nothing of the position in {symbol}"
        filled: dict[str, Decimal] = defaultdict(lambda: ZERO)
        for symbol, text in self.execute("SELECT symbol, fill FROM fills"):
            fill = msgspec.json.decode(text)
            amount = Decimal(fill["quantity"])
            signed = amount if fill["side"] == "BUY" else -amount
            filled[symbol] = EXACT.add(filled[symbol], signed)
        for symbol, total in filled.items():
            if total != self.balance(f"position:{symbol}", symbol):
                yield f"the fills of {symbol} sum to {total:f}, unlike its position"


def _currency(ledger: Ledger) -> str:
    rows = ledger.execute("SELECT asset FROM balances WHERE account = 'deposits'")
    return str(rows[0][0]) if rows else ""
