"""The books of a paper account for who only reads them, beside the process that trades."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from llm_trader.storage.sqlite_file import read_only
from llm_trader.timeframe import Millis
from llm_trader.workflow.moved_files import refuse_old_place
from llm_trader.workflow.orders import Fill, OrderIntent, OrderResult, Quote
from llm_trader.workflow.paper.accounting import Holding
from llm_trader.workflow.paper.ledger import LEDGER_FORMAT
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
    """All from one moment; None where there is no ledger yet. Nothing is ever written.

    `symbol` and `limit` choose orders and fills. Raises `ConfigurationError` for a ledger that lies
    at its former place, and otherwise as `SqliteFile` does.
    """
    refuse_old_place(path)
    with read_only(path, LEDGER_FORMAT, busy_s=_BUSY_S) as database:
        return None if database is None else _books(database, symbol, limit)


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
