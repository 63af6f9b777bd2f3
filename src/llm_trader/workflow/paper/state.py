"""Orders, positions and prices of a paper account, as the ledger has them.

What was read is kept until another process writes to the ledger, or a transaction is rolled back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

import msgspec

from llm_trader.timeframe import Millis
from llm_trader.workflow.orders import ZERO, Fill, OrderIntent, OrderResult, Quote
from llm_trader.workflow.paper.accounting import Holding
from llm_trader.workflow.paper.ledger import Ledger

OrderState = Literal["waiting", "filled", "rejected"]


@dataclass(slots=True)
class SymbolState:
    """`waiting` orders are in the order in which they fill; `mark` is the latest price."""

    symbol: str
    holding: Holding | None = None
    waiting: list[OrderIntent] = field(default_factory=list)
    mark: Quote | None = None

    def has_seen(self, time_ms: Millis) -> bool:
        return self.mark is not None and self.mark.time_ms > time_ms


class PaperState:
    """`keeps_marks` writes each price to the ledger, so that other processes see it."""

    def __init__(self, ledger: Ledger, *, keeps_marks: bool) -> None:
        self.ledger = ledger
        self._keeps_marks = keeps_marks
        self._symbols: dict[str, SymbolState] = {}
        # Of committed prices; those in the ledger may be older.
        self._marks: dict[str, Quote] = {}
        self._version = ledger.changed_elsewhere()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """A transaction of the ledger, after which what was read is what the ledger has."""
        try:
            with self.ledger.transaction():
                yield
        except BaseException:
            self._symbols.clear()  # they have what was rolled back
            raise
        self._marks |= {s: state.mark for s, state in self._symbols.items() if state.mark}

    def of(self, symbol: str) -> SymbolState:
        version = self.ledger.changed_elsewhere()
        if version != self._version:
            self._symbols.clear()
            self._version = version
        state = self._symbols.get(symbol)
        if state is None:
            state = self._symbols[symbol] = self._read(symbol)
        return state

    def _read(self, symbol: str) -> SymbolState:
        state = SymbolState(symbol, mark=self._marks.get(symbol))
        for (text,) in self.ledger.execute(
            "SELECT holding FROM positions WHERE symbol = ?", (symbol,)
        ):
            state.holding = msgspec.json.decode(text, type=Holding)
        waiting = self.ledger.execute(
            "SELECT intent FROM orders WHERE symbol = ? AND state = 'waiting'", (symbol,)
        )
        intents = [msgspec.json.decode(text, type=OrderIntent) for (text,) in waiting]
        # A position is closed before another is opened.
        state.waiting = sorted(intents, key=lambda i: (i.created_ms, i.kind, i.client_order_id))
        for time_ms, price in self.ledger.execute(
            "SELECT time_ms, price FROM marks WHERE symbol = ?", (symbol,)
        ):
            if not state.has_seen(time_ms):
                state.mark = Quote(Decimal(price), time_ms)
        return state

    def mark(self, state: SymbolState, mark: Quote, *, keep: bool = False) -> None:
        """The latest price of a symbol; with `keep` it is written whatever the setting."""
        state.mark = mark
        if keep or self._keeps_marks:
            self.ledger.note(
                "INSERT INTO marks VALUES (?, ?, ?) ON CONFLICT (symbol) DO UPDATE "
                "SET time_ms = excluded.time_ms, price = excluded.price",
                (state.symbol, mark.time_ms, f"{mark.price:f}"),
            )
        if not keep:
            self._marks[state.symbol] = mark

    def held_symbols(self) -> list[str]:
        return [s for (s,) in self.ledger.execute("SELECT symbol FROM positions ORDER BY symbol")]

    def total_margin(self) -> Decimal:
        rows = self.ledger.execute("SELECT holding FROM positions")
        return sum((msgspec.json.decode(t, type=Holding).margin for (t,) in rows), ZERO)

    def hold(self, state: SymbolState, holding: Holding | None) -> None:
        state.holding = holding
        if holding is None:
            self.ledger.execute("DELETE FROM positions WHERE symbol = ?", (state.symbol,))
            return
        self.ledger.execute(
            "INSERT INTO positions VALUES (?, ?) "
            "ON CONFLICT (symbol) DO UPDATE SET holding = excluded.holding",
            (state.symbol, msgspec.json.encode(holding).decode()),
        )

    def order_result(self, client_order_id: str) -> OrderResult | None:
        rows = self.ledger.execute(
            "SELECT result FROM orders WHERE client_order_id = ?", (client_order_id,)
        )
        if not rows:
            return None
        result: OrderResult = msgspec.json.decode(rows[0][0], type=OrderResult)
        return result

    def note_order(
        self, intent: OrderIntent, state: OrderState, result: OrderResult
    ) -> OrderResult:
        encode = msgspec.json.encode
        self.ledger.execute(
            "INSERT INTO orders VALUES (?, ?, ?, ?, ?) ON CONFLICT (client_order_id) DO UPDATE "
            "SET state = excluded.state, result = excluded.result",
            (
                intent.client_order_id,
                intent.symbol,
                state,
                encode(intent).decode(),
                encode(result).decode(),
            ),
        )
        return result

    def record_fill(self, fill: Fill, position_after: Decimal) -> None:
        self.ledger.execute(
            "INSERT INTO fills (client_order_id, symbol, time_ms, fill, position_after) "
            "VALUES (?, ?, ?, ?, ?)",
            (
                fill.client_order_id,
                fill.symbol,
                fill.time_ms,
                msgspec.json.encode(fill).decode(),
                f"{position_after:f}",
            ),
        )

    def fills(self, since_ms: Millis) -> list[Fill]:
        rows = self.ledger.execute(
            "SELECT fill FROM fills WHERE time_ms >= ? ORDER BY time_ms, id", (since_ms,)
        )
        return [msgspec.json.decode(text, type=Fill) for (text,) in rows]

    def payments(self) -> list[tuple[str, Millis, Decimal]]:
        """Funding that was settled, by symbol and due time; above 0 where the account paid."""
        rows = self.ledger.execute(
            "SELECT symbol, time_ms, amount FROM transactions JOIN entries "
            "ON transaction_id = id WHERE kind = 'funding' AND account = 'funding' ORDER BY time_ms"
        )
        return [(symbol, time_ms, Decimal(amount)) for symbol, time_ms, amount in rows]

    def quantity_before(self, symbol: str, time_ms: Millis) -> Decimal:
        """The position just before a time, by the fills."""
        rows = self.ledger.execute(
            "SELECT position_after FROM fills WHERE symbol = ? AND time_ms < ? "
            "ORDER BY time_ms DESC, id DESC LIMIT 1",
            (symbol, time_ms),
        )
        return Decimal(rows[0][0]) if rows else ZERO
