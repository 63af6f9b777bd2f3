"""The account that a workflow trades, and its orders, for who looks at them.

Nothing here trades. Books on paper are read beside the process that writes them; an account at an
exchange is asked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from typing import Final

import msgspec

from llm_trader.app.job import Job, blocking
from llm_trader.clock import WallClock
from llm_trader.errors import InvalidInputError
from llm_trader.timeframe import DAY_MS, Millis
from llm_trader.workflow.broker import Broker
from llm_trader.workflow.exchange.journal import OrderJournal
from llm_trader.workflow.guards import result_of_day
from llm_trader.workflow.moved_files import refuse_old_place
from llm_trader.workflow.opening import open_broker
from llm_trader.workflow.orders import (
    ZERO,
    Fill,
    OrderIntent,
    OrderResult,
    Placed,
    Position,
    Quote,
)
from llm_trader.workflow.paper.accounting import WALLET
from llm_trader.workflow.paper.ledger import Ledger, LedgerReport
from llm_trader.workflow.paper.reading import PaperBooks, read_books

# More than a day's guards allow by default.
_FILLS: Final = 10_000


class OpenPosition(msgspec.Struct, frozen=True, kw_only=True):
    """`quantity` is below 0 for short. What is not known is None."""

    symbol: str
    quantity: Decimal
    entry_price: Decimal | None
    price: Decimal | None
    price_at_ms: Millis | None
    unrealized: Decimal | None
    opened_at_ms: Millis | None
    stop_price: Decimal | None
    target_price: Decimal | None
    close_at_ms: Millis | None


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """`day_result` is what the UTC day has brought, open profit included and funding left out.

    `waiting_orders` of these positions, and on paper of all symbols, have not filled yet.
    """

    broker: str
    currency: str
    equity: Decimal | None
    day_result: Decimal | None
    positions: list[OpenPosition]
    waiting_orders: int


class ListedOrder(msgspec.Struct, frozen=True, kw_only=True):
    """`state` on paper: waiting, filled, rejected; at an exchange: sending, placed, rejected,
    void (it never arrived), or unknown.
    """

    client_order_id: str
    created_at_ms: Millis
    symbol: str
    side: str
    kind: str
    quantity: Decimal
    state: str
    average_price: Decimal | None
    reason: str | None


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """The newest of `total`."""

    broker: str
    file: str
    total: int
    orders: list[ListedOrder]


@blocking
async def read_account(job: Job) -> Account:
    """Raises `InvalidInputError` where nothing was traded on paper yet, `ConfigurationError`
    without the keys of an exchange, and `ExchangeError` where it does not answer.
    """
    if job.settings.workflow.broker == "paper":
        return _of_books(_paper_books(job), job.now_ms)
    async with _exchange(job) as broker:
        return await _of_broker(broker, job.now_ms)


def list_orders(job: Job, symbol: str | None, limit: int) -> Orders:
    """Of the ledger on paper, or of the journal of what was sent to an exchange."""
    config = job.settings.workflow
    if config.broker == "paper":
        books = _paper_books(job, symbol, limit)
        listed = [_listed(one.intent, one.state, one.result) for one in books.orders]
        return Orders(
            broker="paper", file=str(config.paper.ledger), total=books.total_orders, orders=listed
        )
    with open_journal(job) as journal:
        total, notes = journal.count(symbol), journal.newest(symbol, limit)
    return Orders(
        broker=config.broker,
        file=str(config.exchange.journal),
        total=total,
        orders=[_listed(note.intent, note.state, note.result) for note in notes],
    )


@contextmanager
def open_journal(job: Job) -> Iterator[OrderJournal]:
    """Raises `InvalidInputError` where no order was sent to an exchange yet."""
    path = job.settings.workflow.exchange.journal
    refuse_old_place(path)
    if not path.exists():
        raise InvalidInputError(f"no order was sent to an exchange yet: there is no {path}")
    journal = OrderJournal(path)
    try:
        yield journal
    finally:
        journal.close()


def check_ledger(job: Job) -> LedgerReport:
    """Adds the books on paper up anew."""
    path = job.settings.workflow.paper.ledger
    refuse_old_place(path)
    if not path.exists():
        raise _no_account(job)
    ledger = Ledger(path)
    try:
        return ledger.check()
    finally:
        ledger.close()


def _paper_books(job: Job, symbol: str | None = None, limit: int = _FILLS) -> PaperBooks:
    books = read_books(job.settings.workflow.paper.ledger, symbol, limit)
    if books is None:
        raise _no_account(job)
    return books


def _no_account(job: Job) -> InvalidInputError:
    return InvalidInputError(
        f"there is no paper account in {job.settings.workflow.paper.ledger} yet; it begins with: "
        "llm-trader workflow serve workflows/llm-trader/main.yml"
    )


def _of_books(books: PaperBooks, now_ms: Millis) -> Account:
    positions = [
        _open(holding.as_position(symbol), books.marks.get(symbol))
        for symbol, holding in sorted(books.positions.items())
    ]
    wallet = sum((one.amount for one in books.changes if one.account == WALLET), ZERO)
    profits = [one.unrealized for one in positions]
    known = [profit for profit in profits if profit is not None]
    unrealized = sum(known, ZERO) if len(known) == len(profits) else None
    return Account(
        broker="paper",
        currency=books.currency,
        equity=None if unrealized is None else wallet + unrealized,
        day_result=_day_result(books.fills, unrealized, now_ms),
        positions=positions,
        waiting_orders=sum(one.state == "waiting" for one in books.orders),
    )


async def _of_broker(broker: Broker, now_ms: Millis) -> Account:
    balance = await broker.balance()
    held = [await broker.position(symbol) for symbol in sorted(await broker.exposures())]
    positions = [_open(position, await broker.quote(position.symbol)) for position in held]
    fills = await broker.fills(now_ms - now_ms % DAY_MS)
    return Account(
        broker=broker.name,
        currency=balance.currency,
        equity=balance.equity,
        day_result=_day_result(fills, balance.unrealized, now_ms),
        positions=positions,
        waiting_orders=sum(len(position.waiting_orders) for position in held),
    )


def _open(position: Position, mark: Quote | None) -> OpenPosition:
    entry, price = position.entry_price, None if mark is None else mark.price
    profit = None
    if entry is not None and price is not None:
        profit = position.quantity * (price - entry)
    return OpenPosition(
        symbol=position.symbol,
        quantity=position.quantity,
        entry_price=entry,
        price=price,
        price_at_ms=None if mark is None else mark.time_ms,
        unrealized=profit,
        opened_at_ms=position.opened_ms,
        stop_price=position.stop_price,
        target_price=position.target_price,
        close_at_ms=position.close_at_ms,
    )


def _day_result(
    fills: Sequence[Fill], unrealized: Decimal | None, now_ms: Millis
) -> Decimal | None:
    return None if unrealized is None else result_of_day(fills, unrealized, now_ms)


def _listed(intent: OrderIntent, state: str, result: OrderResult | None) -> ListedOrder:
    return ListedOrder(
        client_order_id=intent.client_order_id,
        created_at_ms=intent.created_ms,
        symbol=intent.symbol,
        side=intent.side,
        kind=intent.kind,
        quantity=intent.quantity,
        state=state,
        average_price=result.average_price if isinstance(result, Placed) else None,
        reason=None if result is None or isinstance(result, Placed) else result.reason,
    )


@asynccontextmanager
async def _exchange(job: Job) -> AsyncIterator[Broker]:
    """Whoever only looks needs no flag --live."""
    config = job.settings.workflow
    symbols: set[str] = set()
    if config.exchange.journal.exists():
        with open_journal(job) as journal:
            symbols = {note.intent.symbol for note in journal.newest(None, _FILLS)}
    broker = await open_broker(
        config,
        job.environ,
        WallClock(lambda: job.now_ms),
        live_flag=config.exchange.live,
        symbols=sorted(symbols),
    )
    try:
        yield broker
    finally:
        await broker.close()
