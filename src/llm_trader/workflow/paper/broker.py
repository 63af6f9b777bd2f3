"""Orders, stops and targets on paper.

1. An order fills at the first price of its time or later; without one for too long it lapses.
2. At a price, in this order: a stop or target that the price lies beyond, the longest hold, the
   orders that wait. Within a candle the stop comes before the target (`trading/exits.py`).
3. The margin of a position is its notional over the leverage. Where what is left of it comes down
   to the maintenance margin, it is liquidated, if its stop does not come first. No position
   loses more than its margin.

So it trades as `evaluation/backtest/simulator.py` does, but in Decimals, in steps of the contract,
and with margin. Prices and candles come in the order of time; what was seen already is passed over,
so a feed may begin again where it likes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from math import inf
from typing import Final, Literal

import msgspec

from llm_trader.errors import StaleDataError
from llm_trader.timeframe import Millis
from llm_trader.trading.exits import Exit, OpenPosition, exit_at_open, exit_inside
from llm_trader.workflow.config import PaperConfig
from llm_trader.workflow.instrument import InstrumentRules, exact
from llm_trader.workflow.orders import (
    ZERO,
    Balance,
    Fill,
    FillReason,
    OrderIntent,
    OrderResult,
    Placed,
    Position,
    Quote,
    Reconciliation,
    Rejected,
    Unknown,
)
from llm_trader.workflow.paper.accounting import (
    EXACT,
    INSURANCE,
    WALLET,
    Holding,
    charge,
    closing_entries,
    liquidation_price,
    money,
    opening_entries,
    released_cost,
)
from llm_trader.workflow.paper.ledger import Ledger

OrderState = Literal["waiting", "filled", "rejected"]

_BPS: Final = Decimal(10_000)
_PCT: Final = Decimal(100)
_INFINITY: Final = Decimal("Infinity")


@dataclass(slots=True)
class _Symbol:
    holding: Holding | None = None
    waiting: list[OrderIntent] = field(default_factory=list)
    mark: Quote | None = None

    def has_seen(self, time_ms: Millis) -> bool:
        return self.mark is not None and self.mark.time_ms > time_ms


class PaperBroker:
    """`instruments` gives the rules of a symbol. A new ledger gets its deposit at `now_ms`.

    `keeps_marks` writes each price to the ledger, so that other processes see it; a backtest does
    without.
    """

    def __init__(
        self,
        ledger: Ledger,
        config: PaperConfig,
        instruments: Callable[[str], InstrumentRules],
        *,
        now_ms: Millis,
        currency: str = "USDT",
        keeps_marks: bool = True,
    ) -> None:
        self._ledger = ledger
        self._config = config
        self._instruments = instruments
        self._currency = currency
        self._keeps_marks = keeps_marks
        self._fee = exact(config.taker_fee_bps) / _BPS
        self._slippage = exact(config.slippage_bps) / _BPS
        self._leverage = exact(config.leverage)
        self._maintenance = exact(config.maintenance_margin_pct) / _PCT
        self._max_wait_ms = round(config.max_fill_wait_s * 1000)
        self._symbols: dict[str, _Symbol] = {}
        self._version = ledger.changed_elsewhere()
        deposit = charge("deposits", currency, -money(exact(config.deposit)))
        with ledger.transaction():
            ledger.post(now_ms, "deposit", deposit, symbol="", reference="first")

    @property
    def name(self) -> str:
        return "paper"

    # What the workflow asks.

    async def instrument(self, symbol: str) -> InstrumentRules:
        return self._instruments(symbol)

    async def quote(self, symbol: str) -> Quote:
        mark = self._symbol(symbol).mark
        if mark is None:
            raise StaleDataError(f"the paper broker has seen no price of {symbol} yet")
        return mark

    async def position(self, symbol: str) -> Position:
        state = self._symbol(symbol)
        waiting = tuple(intent.client_order_id for intent in state.waiting)
        holding = state.holding
        if holding is None:
            return Position(symbol=symbol, waiting_orders=waiting)
        return Position(
            symbol=symbol,
            quantity=holding.quantity,
            entry_price=holding.entry_price,
            opened_ms=holding.opened_ms,
            stop_price=holding.stop_price,
            target_price=holding.target_price,
            close_at_ms=holding.close_at_ms,
            opened_by=holding.client_order_id,
            waiting_orders=waiting,
        )

    async def positions(self) -> list[Position]:
        """The open ones."""
        rows = self._ledger.execute("SELECT symbol FROM positions ORDER BY symbol")
        return [await self.position(symbol) for (symbol,) in rows]

    def waiting_symbols(self) -> list[str]:
        """Those whose orders wait for a price."""
        rows = self._ledger.execute("SELECT DISTINCT symbol FROM orders WHERE state = 'waiting'")
        return [symbol for (symbol,) in rows]

    def last_price_ms(self, symbol: str) -> Millis | None:
        mark = self._symbol(symbol).mark
        return None if mark is None else mark.time_ms

    async def balance(self) -> Balance:
        with self._ledger.transaction():
            wallet = self._ledger.balance(WALLET, self._currency)
            margin, unrealized = self._margin(), ZERO
            for (symbol,) in self._ledger.execute("SELECT symbol FROM positions"):
                state = self._symbol(symbol)
                if state.mark is None:
                    raise StaleDataError(
                        f"the equity is unknown: the paper broker has seen no price of {symbol} yet"
                    )
                if state.holding is not None:
                    unrealized += state.holding.unrealized(state.mark.price)
        return Balance(
            currency=self._currency,
            equity=wallet + unrealized,
            available=wallet - margin,
            unrealized=unrealized,
        )

    async def fills(self, since_ms: Millis) -> list[Fill]:
        rows = self._ledger.execute(
            "SELECT fill FROM fills WHERE time_ms >= ? ORDER BY time_ms, id", (since_ms,)
        )
        return [msgspec.json.decode(text, type=Fill) for (text,) in rows]

    async def place(self, intent: OrderIntent) -> OrderResult:
        try:
            with self._changing():
                return self._place(intent)
        except sqlite3.Error as error:
            return Unknown(
                client_order_id=intent.client_order_id, reason=f"the ledger cannot say: {error}"
            )

    async def reconcile(self, symbol: str) -> Reconciliation:
        """The books are the venue here, so nothing is ever unknown once they can be read."""
        return Reconciliation(position=await self.position(symbol))

    async def cancel(self, symbol: str) -> None:
        with self._changing():
            state = self._symbol(symbol)
            for intent in state.waiting:
                self._refuse(intent, "it was cancelled")
            state.waiting = []

    async def close(self) -> None:
        self._ledger.close()

    # What the market brings.

    def on_price(self, symbol: str, time_ms: Millis, price: Decimal) -> None:
        """A trade, such as the open of a candle."""
        state = self._symbol(symbol)
        if state.has_seen(time_ms):
            return
        if _exit_at_price(state.holding, time_ms, price) is None and not state.waiting:
            self._mark(symbol, state, Quote(price, time_ms))
            return
        with self._changing():
            state = self._symbol(symbol)  # anew: another process may have changed it
            if end := _exit_at_price(state.holding, time_ms, price):
                self._exit(symbol, state, end)
            self._mark(symbol, state, Quote(price, time_ms), keep=True)
            for intent in [i for i in state.waiting if i.created_ms <= time_ms]:
                state.waiting.remove(intent)
                self._try(state, intent, time_ms, price)

    def on_candle(
        self, symbol: str, last_ms: Millis, high: Decimal, low: Decimal, close: Decimal
    ) -> None:
        """The rest of a candle, after its open; `last_ms` is its last millisecond."""
        state = self._symbol(symbol)
        if state.has_seen(last_ms):
            return
        if _exit_in_candle(state.holding, high, low, last_ms) is None:
            self._mark(symbol, state, Quote(close, last_ms))
            return
        with self._changing():
            state = self._symbol(symbol)
            if end := _exit_in_candle(state.holding, high, low, last_ms):
                self._exit(symbol, state, end)
            self._mark(symbol, state, Quote(close, last_ms), keep=True)

    def on_funding(self, symbol: str, due_ms: Millis, rate: Decimal, price: Decimal) -> None:
        """A settlement, however late it comes: who held a position before `due_ms` pays it."""
        rows = self._ledger.execute(
            "SELECT position_after FROM fills WHERE symbol = ? AND time_ms < ? "
            "ORDER BY time_ms DESC, id DESC LIMIT 1",
            (symbol, due_ms),
        )
        quantity = Decimal(rows[0][0]) if rows else ZERO
        if not quantity:
            return
        paid = money(EXACT.multiply(EXACT.multiply(quantity, price), rate))
        with self._changing():
            entries = charge("funding", self._currency, paid)
            self._ledger.post(due_ms, "funding", entries, symbol=symbol, reference=str(due_ms))
            self._cover_debts(due_ms, symbol)

    # Inside a transaction of the ledger.

    @contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            with self._ledger.transaction():
                yield
        except BaseException:
            self._symbols.clear()  # what was rolled back
            raise

    def _symbol(self, symbol: str) -> _Symbol:
        version = self._ledger.changed_elsewhere()
        if version != self._version:
            self._symbols.clear()
            self._version = version
        state = self._symbols.get(symbol)
        if state is None:
            state = self._symbols[symbol] = self._read(symbol)
        return state

    def _read(self, symbol: str) -> _Symbol:
        state = _Symbol()
        for (text,) in self._ledger.execute(
            "SELECT holding FROM positions WHERE symbol = ?", (symbol,)
        ):
            state.holding = msgspec.json.decode(text, type=Holding)
        waiting = self._ledger.execute(
            "SELECT intent FROM orders WHERE symbol = ? AND state = 'waiting'", (symbol,)
        )
        intents = [msgspec.json.decode(text, type=OrderIntent) for (text,) in waiting]
        # A position is closed before another is opened.
        state.waiting = sorted(intents, key=lambda i: (i.created_ms, i.kind, i.client_order_id))
        for time_ms, price in self._ledger.execute(
            "SELECT time_ms, price FROM marks WHERE symbol = ?", (symbol,)
        ):
            state.mark = Quote(Decimal(price), time_ms)
        return state

    def _mark(self, symbol: str, state: _Symbol, mark: Quote, *, keep: bool = False) -> None:
        state.mark = mark
        if keep or self._keeps_marks:
            self._ledger.execute(
                "INSERT INTO marks VALUES (?, ?, ?) ON CONFLICT (symbol) DO UPDATE "
                "SET time_ms = excluded.time_ms, price = excluded.price",
                (symbol, mark.time_ms, f"{mark.price:f}"),
            )

    def _place(self, intent: OrderIntent) -> OrderResult:
        rows = self._ledger.execute(
            "SELECT state, result FROM orders WHERE client_order_id = ?", (intent.client_order_id,)
        )
        if rows:
            known: OrderResult = msgspec.json.decode(rows[0][1], type=OrderResult)
            return known
        state = self._symbol(intent.symbol)
        mark = state.mark
        if mark is not None and mark.time_ms >= intent.created_ms:
            return self._try(state, intent, mark.time_ms, mark.price)
        waits = Placed(client_order_id=intent.client_order_id, waiting=True)
        state.waiting.append(intent)
        return self._note(intent, "waiting", waits)

    def _note(self, intent: OrderIntent, state: OrderState, result: OrderResult) -> OrderResult:
        encode = msgspec.json.encode
        self._ledger.execute(
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

    def _refuse(self, intent: OrderIntent, reason: str) -> OrderResult:
        refusal = Rejected(client_order_id=intent.client_order_id, reason=reason)
        return self._note(intent, "rejected", refusal)

    def _try(
        self, state: _Symbol, intent: OrderIntent, time_ms: Millis, price: Decimal
    ) -> OrderResult:
        """Fills an order at a price, or says why not."""
        if time_ms - intent.created_ms >= self._max_wait_ms:
            return self._refuse(intent, f"no price came for {self._config.max_fill_wait_s:g} s")
        rules = self._instruments(intent.symbol)
        reduces = intent.kind == "close"
        reason = rules.refusal(intent.quantity, price, reduces=reduces)
        if reason is not None:
            return self._refuse(intent, reason)
        held = ZERO if state.holding is None else state.holding.quantity
        ordered = intent.signed_quantity
        closed = min(intent.quantity, abs(held)) if held * ordered < 0 else ZERO
        if reduces and not closed:
            return self._refuse(intent, "there is no position that it could close")
        opened = ZERO if reduces else intent.quantity - closed
        if reason := self._lacks_margin(state, opened, closed, price):
            return self._refuse(intent, reason)
        if closed and state.holding is not None:
            signed = closed if held > 0 else -closed
            end = time_ms, price, intent.client_order_id
            self._close(intent.symbol, state, state.holding, signed, *end, "order")
        if opened:
            self._open(state, intent, opened, time_ms, price)
        self._mark(intent.symbol, state, Quote(price, time_ms), keep=True)
        placed = Placed(
            client_order_id=intent.client_order_id, filled=closed + opened, average_price=price
        )
        return self._note(intent, "filled", placed)

    def _lacks_margin(
        self, state: _Symbol, opened: Decimal, closed: Decimal, price: Decimal
    ) -> str | None:
        if not opened:
            return None
        notional = money(EXACT.multiply(opened, price))
        needed = money(notional / self._leverage) + self._costs(notional)
        available = self._ledger.balance(WALLET, self._currency) - self._margin()
        if closed and state.holding is not None:
            # An opening order that also closes does so with the whole position.
            available += state.holding.margin + state.holding.unrealized(price)
            available -= self._costs(money(EXACT.multiply(closed, price)))
        if needed <= available:
            return None
        return f"margin and fees come to {needed:f}, and only {available:f} is available"

    def _margin(self) -> Decimal:
        rows = self._ledger.execute("SELECT holding FROM positions")
        return sum((msgspec.json.decode(t, type=Holding).margin for (t,) in rows), ZERO)

    def _costs(self, notional: Decimal) -> Decimal:
        return money(notional * self._fee) + money(notional * self._slippage)

    def _open(
        self, state: _Symbol, intent: OrderIntent, opened: Decimal, time_ms: Millis, price: Decimal
    ) -> None:
        signed = opened if intent.side == "BUY" else -opened
        notional = money(EXACT.multiply(opened, price))
        cost = -notional if signed > 0 else notional
        fee, slippage = money(notional * self._fee), money(notional * self._slippage)
        entries = [
            *opening_entries(intent.symbol, self._currency, signed, cost),
            *charge("fees", self._currency, fee),
            *charge("slippage", self._currency, slippage),
        ]
        self._ledger.post(time_ms, "open", entries, symbol=intent.symbol)
        margin, before = money(notional / self._leverage), state.holding
        quantity, opened_ms = signed, time_ms
        if before is not None:
            quantity, cost = signed + before.quantity, cost + before.cost
            margin, opened_ms = margin + before.margin, before.opened_ms
        self._hold(
            intent.symbol,
            state,
            Holding(
                quantity=quantity,
                cost=cost,
                margin=margin,
                opened_ms=opened_ms,
                client_order_id=intent.client_order_id,
                liquidation_price=liquidation_price(quantity, cost, margin, self._maintenance),
                stop_price=intent.stop_price,
                target_price=intent.target_price,
                close_at_ms=intent.close_at_ms,
            ),
        )
        self._record(
            Fill(
                client_order_id=intent.client_order_id,
                symbol=intent.symbol,
                side=intent.side,
                time_ms=time_ms,
                price=price,
                quantity=opened,
                fee=fee,
                slippage=slippage,
                realized=ZERO,
                opens=True,
                reason="order",
            ),
            quantity,
        )

    def _exit(self, symbol: str, state: _Symbol, end: Exit[Decimal]) -> None:
        holding = state.holding
        if holding is None:
            return
        reason: FillReason = "target" if end.reason == "target" else "time"
        if end.reason == "stop":
            reason = "liquidation" if _is_liquidated(holding) else "stop"
        order_id = holding.client_order_id
        quantity = holding.quantity
        self._close(symbol, state, holding, quantity, end.time_ms, end.price, order_id, reason)

    def _close(
        self,
        symbol: str,
        state: _Symbol,
        holding: Holding,
        quantity: Decimal,
        time_ms: Millis,
        price: Decimal,
        order_id: str,
        reason: FillReason,
    ) -> None:
        """Closes a signed part of a position."""
        released = released_cost(holding, quantity)
        proceeds = money(EXACT.multiply(quantity, price))
        fee, slippage = money(abs(proceeds) * self._fee), money(abs(proceeds) * self._slippage)
        if reason == "liquidation":
            fee += money(abs(proceeds) * exact(self._config.liquidation_fee_bps) / _BPS)
        entries = [
            *closing_entries(symbol, self._currency, quantity, released, proceeds),
            *charge("fees", self._currency, fee),
            *charge("slippage", self._currency, slippage),
        ]
        share = quantity / holding.quantity
        margin = holding.margin if share == 1 else money(holding.margin * share)
        lost = fee + slippage - released - proceeds
        if lost > margin:
            entries += charge(INSURANCE, self._currency, margin - lost)
        self._ledger.post(time_ms, reason, entries, symbol=symbol)
        left = holding.quantity - quantity
        if left:
            rest = msgspec.structs.replace(
                holding, quantity=left, cost=holding.cost - released, margin=holding.margin - margin
            )
            price_of_rest = liquidation_price(left, rest.cost, rest.margin, self._maintenance)
            rest = msgspec.structs.replace(rest, liquidation_price=price_of_rest)
            self._hold(symbol, state, rest)
        else:
            self._hold(symbol, state, None)
        self._record(
            Fill(
                client_order_id=order_id,
                symbol=symbol,
                side="SELL" if quantity > 0 else "BUY",
                time_ms=time_ms,
                price=price,
                quantity=abs(quantity),
                fee=fee,
                slippage=slippage,
                realized=released + proceeds,
                opens=False,
                reason=reason,
            ),
            left,
        )
        self._cover_debts(time_ms, symbol)

    def _cover_debts(self, time_ms: Millis, symbol: str) -> None:
        """Funding may cost more than there is; without a position nobody can pay that."""
        wallet = self._ledger.balance(WALLET, self._currency)
        if wallet < 0 and not self._ledger.execute("SELECT 1 FROM positions LIMIT 1"):
            debts = charge(INSURANCE, self._currency, wallet)
            self._ledger.post(time_ms, "insurance", debts, symbol=symbol)

    def _hold(self, symbol: str, state: _Symbol, holding: Holding | None) -> None:
        state.holding = holding
        if holding is None:
            self._ledger.execute("DELETE FROM positions WHERE symbol = ?", (symbol,))
            return
        self._ledger.execute(
            "INSERT INTO positions VALUES (?, ?) "
            "ON CONFLICT (symbol) DO UPDATE SET holding = excluded.holding",
            (symbol, msgspec.json.encode(holding).decode()),
        )

    def _record(self, fill: Fill, position_after: Decimal) -> None:
        self._ledger.execute(
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


def _exit_at_price(
    holding: Holding | None, time_ms: Millis, price: Decimal
) -> Exit[Decimal] | None:
    return None if holding is None else exit_at_open(_as_open_position(holding), time_ms, price)


def _exit_in_candle(
    holding: Holding | None, high: Decimal, low: Decimal, last_ms: Millis
) -> Exit[Decimal] | None:
    return None if holding is None else exit_inside(_as_open_position(holding), high, low, last_ms)


def _as_open_position(holding: Holding) -> OpenPosition[Decimal]:
    side = holding.side
    target = side * _INFINITY if holding.target_price is None else holding.target_price
    deadline_ms = inf if holding.close_at_ms is None else holding.close_at_ms
    stop = _nearest_stop(holding)
    return OpenPosition(side, holding.opened_ms, holding.entry_price, stop, target, deadline_ms)


def _is_liquidated(holding: Holding) -> bool:
    """Whether the liquidation comes before the stop."""
    stop = holding.stop_price
    return stop is None or (holding.liquidation_price - stop) * holding.side > 0


def _nearest_stop(holding: Holding) -> Decimal:
    if _is_liquidated(holding) or holding.stop_price is None:
        return holding.liquidation_price
    return holding.stop_price
