"""The books of a paper account for who only reads them, beside the process that trades."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

import msgspec

from llm_trader.errors import StoreError
from llm_trader.timeframe import Millis
from llm_trader.workflow.moved_files import refuse_old_place
from llm_trader.workflow.orders import Fill, OrderIntent, OrderResult, Quote
from llm_trader.workflow.paper.accounting import Holding
from llm_trader.workflow.paper.ledger import LEDGER_VERSION
from llm_trader.workflow.paper.state import OrderState

_BUSY_S: Final = 2.0


class BookedChange(NamedTuple):
    """An entry: the account's balance changes by an amount."""

    time_ms: Millis
    account: str
    amount: Decimal


class BookedOrder(NamedTuple):
    intent: OrderIntent
    state: OrderState
    result: OrderResult


@dataclass(frozen=True, slots=True)
class PaperBooks:
    """`changes` are in the order of time; `orders` and `fills` are the newest, newest first."""

    currency: str
    changes: list[BookedChange]
    positions: dict[str, Holding]
    marks: dict[str, Quote]
    total_orders: int
    orders: list[BookedOrder]
    fills: list[Fill]


def read_books(path: Path, symbol: str | None, limit: int) -> PaperBooks | None:
    """All from one moment; None where there is no ledger. Nothing is ever written.

    `symbol` and `limit` choose orders and fills. Raises `StoreError` for what is no ledger, and
    `ConfigurationError` for one that lies at its former place.
    """
    refuse_old_place(path, "workflow.paper.ledger")
    if not path.exists():
        return None
    try:
        address = f"file:{quote(str(path.absolute()))}?mode=ro"
        with closing(
            sqlite3.connect(address, uri=True, timeout=_BUSY_S, isolation_level=None)
        ) as database:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                return None  # its first transaction has not ended yet
            if version != LEDGER_VERSION:
                raise StoreError(
                    f"{path} is a ledger of version {version}, and this program reads "
                    f"{LEDGER_VERSION}; use the program that wrote it"
                )
            database.execute("BEGIN")
            return _books(database, symbol, limit)
    except sqlite3.Error as error:
        raise StoreError(
            f"the ledger {path} (workflow.paper.ledger) cannot be read: {error}"
        ) from error


def _books(database: sqlite3.Connection, symbol: str | None, limit: int) -> PaperBooks:
    decode, chosen = msgspec.json.decode, "WHERE ?1 IS NULL OR symbol = ?1"
    changes = database.execute(
        "SELECT time_ms, account, amount FROM entries JOIN transactions ON id = transaction_id "
        "WHERE account != 'market' ORDER BY time_ms, id"
    )
    orders = database.execute(
        f"SELECT intent, state, result FROM orders {chosen} "  # noqa: S608  no input
        "ORDER BY json_extract(intent, '$.created_ms') DESC, client_order_id LIMIT ?2",
        (symbol, limit),
    )
    fills = database.execute(
        f"SELECT fill FROM fills {chosen} ORDER BY time_ms DESC, id DESC LIMIT ?2",  # noqa: S608
        (symbol, limit),
    )
    total = database.execute(
        f"SELECT count(*) FROM orders {chosen}",  # noqa: S608
        (symbol,),
    )
    currency = database.execute("SELECT asset FROM balances WHERE account = 'deposits'").fetchone()
    return PaperBooks(
        currency=str(currency[0]) if currency else "",
        changes=[BookedChange(time_ms, name, Decimal(text)) for time_ms, name, text in changes],
        positions={
            name: decode(text, type=Holding)
            for name, text in database.execute("SELECT symbol, holding FROM positions")
        },
        marks={
            name: Quote(Decimal(price), time_ms)
            for name, time_ms, price in database.execute("SELECT symbol, time_ms, price FROM marks")
        },
        total_orders=int(total.fetchone()[0]),
        orders=[
            BookedOrder(decode(intent, type=OrderIntent), state, decode(result, type=OrderResult))
            for intent, state, result in orders
        ],
        fills=[decode(text, type=Fill) for (text,) in fills],
    )
