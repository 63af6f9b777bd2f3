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

from collections.abc import Callable, Sequence
from decimal import Decimal

from llm_trader.batches import Batches
from llm_trader.errors import StaleDataError, StoreError, StoreLockedError
from llm_trader.timeframe import Millis
from llm_trader.trading.exits import Exit, exit_at_open, exit_inside
from llm_trader.workflow.config import PaperConfig
from llm_trader.workflow.instrument import InstrumentRules, exact
from llm_trader.workflow.orders import (
    ZERO,
    Balance,
    Fill,
    OrderIntent,
    OrderResult,
    Placed,
    Position,
    Quote,
    Reconciliation,
    Rejected,
    Unknown,
)
from llm_trader.workflow.paper.accounting import WALLET, Holding, charge, money
from llm_trader.workflow.paper.ledger import Ledger, LedgerReport
from llm_trader.workflow.paper.state import PaperState, SymbolState
from llm_trader.workflow.paper.trades import PaperTrade, closed_trades
from llm_trader.workflow.paper.trading import PaperTrading, as_open_position


class PaperBroker:
    """`instruments` gives the rules of a symbol. A new ledger gets its deposit at `now_ms`.

    With `keeps_marks`, other processes see each price; a backtest does without.
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
        self._instruments = instruments
        self._currency = currency
        self._max_wait_s = config.max_fill_wait_s
        self._state = PaperState(ledger, keeps_marks=keeps_marks)
        self._trading = PaperTrading(self._state, config, currency)
        self._orders: Batches[OrderIntent, OrderResult] = Batches(self._place_all)
        self.deposit(now_ms, exact(config.deposit), "first")

    @property
    def name(self) -> str:
        return "paper"

    def deposit(self, time_ms: Millis, amount: Decimal, reference: str) -> bool:
        """Pays in, or out below 0. False where it was done already, by its `reference`."""
        paid_in = charge("deposits", self._currency, -money(amount))
        return self._ledger.post(time_ms, "deposit", paid_in, symbol="", reference=reference)

    # What the workflow asks.

    async def instrument(self, symbol: str) -> InstrumentRules:
        return self._instruments(symbol)

    async def quote(self, symbol: str) -> Quote:
        mark = self._state.of(symbol).mark
        if mark is None:
            raise StaleDataError(f"the paper broker has seen no price of {symbol} yet")
        return mark

    async def position(self, symbol: str) -> Position:
        state = self._state.of(symbol)
        waiting = tuple(intent.client_order_id for intent in state.waiting)
        holding = state.holding
        if holding is None:
            return Position(symbol=symbol, waiting_orders=waiting)
        return holding.as_position(symbol, waiting)

    async def positions(self) -> list[Position]:
        """The open ones."""
        return [await self.position(symbol) for symbol in self._state.held_symbols()]

    def waiting_symbols(self) -> list[str]:
        """Those whose orders wait for a price."""
        rows = self._ledger.execute("SELECT DISTINCT symbol FROM orders WHERE state = 'waiting'")
        return [symbol for (symbol,) in rows]

    def last_price_ms(self, symbol: str) -> Millis | None:
        mark = self._state.of(symbol).mark
        return None if mark is None else mark.time_ms

    async def balance(self) -> Balance:
        with self._ledger.transaction():
            wallet = self._ledger.balance(WALLET, self._currency)
            margin, unrealized = self._state.total_margin(), ZERO
            for symbol in self._state.held_symbols():
                state = self._state.of(symbol)
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

    async def exposures(self) -> dict[str, Decimal]:
        with self._ledger.transaction():
            return {symbol: self._exposure(symbol) for symbol in self._state.held_symbols()}

    def _exposure(self, symbol: str) -> Decimal:
        state = self._state.of(symbol)
        if state.mark is None:
            raise StaleDataError(f"the paper broker has seen no price of {symbol} yet")
        return abs(state.holding.quantity) * state.mark.price if state.holding else ZERO

    async def fills(self, since_ms: Millis) -> list[Fill]:
        return self._state.fills(since_ms)

    def trades(self) -> list[PaperTrade]:
        """The positions that were opened and closed again, in the order of their ends."""
        return closed_trades(self._state.fills(0), self._state.payments())

    def check_books(self) -> LedgerReport:
        return self._ledger.check()

    async def place(self, intent: OrderIntent) -> OrderResult:
        self._instruments(intent.symbol)  # a symbol without rules fails alone, and no other order
        return await self._orders.add(intent)

    async def has_order(self, symbol: str, client_order_id: str) -> bool:
        return self._state.order_result(client_order_id) is not None

    async def reconcile(self, symbol: str) -> Reconciliation:
        """The books are the venue here, so nothing is ever unknown once they can be read."""
        return Reconciliation(position=await self.position(symbol))

    async def cancel(self, symbol: str) -> None:
        with self._state.changing():
            state = self._state.of(symbol)
            for intent in state.waiting:
                self._refuse(intent, "it was cancelled")
            state.waiting = []

    async def close(self) -> None:
        self._ledger.close()

    # What the market brings.

    def on_price(self, symbol: str, time_ms: Millis, price: Decimal) -> None:
        """A trade, such as the open of a candle.

        One that comes again, as after a restart, ends no position: what was opened at it meanwhile
        waits for the next one.
        """
        state, mark = self._state.of(symbol), Quote(price, time_ms)
        if state.has_seen(time_ms):
            return
        ends = state.mark != mark and _exit_at_price(state.holding, time_ms, price) is not None
        if not ends and not state.waiting:
            self._state.mark(state, mark)
            return
        with self._state.changing():
            state = self._state.of(symbol)  # anew: another process may have changed it
            if state.mark != mark and (end := _exit_at_price(state.holding, time_ms, price)):
                self._trading.exit(state, end)
            self._state.mark(state, mark, keep=True)
            for intent in [i for i in state.waiting if i.created_ms <= time_ms]:
                state.waiting.remove(intent)
                self._try(state, intent, time_ms, price)

    def on_candle(
        self, symbol: str, last_ms: Millis, high: Decimal, low: Decimal, close: Decimal
    ) -> None:
        """The rest of a candle, after its open; `last_ms` is its last millisecond."""
        state = self._state.of(symbol)
        if state.has_seen(last_ms):
            return
        if _exit_in_candle(state.holding, high, low, last_ms) is None:
            self._state.mark(state, Quote(close, last_ms))
            return
        with self._state.changing():
            state = self._state.of(symbol)
            if end := _exit_in_candle(state.holding, high, low, last_ms):
                self._trading.exit(state, end)
            self._state.mark(state, Quote(close, last_ms), keep=True)

    def on_funding(self, symbol: str, due_ms: Millis, rate: Decimal, price: Decimal) -> None:
        """A settlement, however late it comes: who held a position before `due_ms` pays it."""
        if self._state.quantity_before(symbol, due_ms):
            with self._state.changing():
                self._trading.settle(symbol, due_ms, rate, price)

    async def _place_all(self, intents: Sequence[OrderIntent]) -> list[OrderResult]:
        """Orders that come together share a transaction, as a disk takes milliseconds."""
        try:
            with self._state.changing():
                return [self._place(intent) for intent in intents]
        except (StoreError, StoreLockedError) as error:
            return [
                Unknown(client_order_id=intent.client_order_id, reason=error.message)
                for intent in intents
            ]

    # Inside a transaction of the ledger.

    def _place(self, intent: OrderIntent) -> OrderResult:
        known = self._state.order_result(intent.client_order_id)
        if known is not None:
            return known
        state = self._state.of(intent.symbol)
        if state.mark is not None and state.mark.time_ms >= intent.created_ms:
            return self._try(state, intent, state.mark.time_ms, state.mark.price)
        waits = Placed(client_order_id=intent.client_order_id, waiting=True)
        state.waiting.append(intent)
        return self._state.note_order(intent, "waiting", waits)

    def _refuse(self, intent: OrderIntent, reason: str) -> OrderResult:
        refusal = Rejected(client_order_id=intent.client_order_id, reason=reason)
        return self._state.note_order(intent, "rejected", refusal)

    def _try(
        self, state: SymbolState, intent: OrderIntent, time_ms: Millis, price: Decimal
    ) -> OrderResult:
        """Fills an order at a price, or says why not."""
        if time_ms - intent.created_ms >= self._max_wait_s * 1000:
            return self._refuse(intent, f"no price came for {self._max_wait_s:g} s")
        reduces = intent.kind == "close"
        rules = self._instruments(intent.symbol)
        if reason := rules.refusal(intent.quantity, price, reduces=reduces):
            return self._refuse(intent, reason)
        held = ZERO if state.holding is None else state.holding.quantity
        closed = min(intent.quantity, abs(held)) if held * intent.signed_quantity < 0 else ZERO
        if reduces and not closed:
            return self._refuse(intent, "there is no position that it could close")
        opened = ZERO if reduces else intent.quantity - closed
        if reason := self._trading.lacks_margin(state, opened, closed, price):
            return self._refuse(intent, reason)
        if closed:
            signed = closed if held > 0 else -closed
            self._trading.close(state, signed, time_ms, price, intent.client_order_id, "order")
        if opened:
            self._trading.open(state, intent, opened, time_ms, price)
        self._state.mark(state, Quote(price, time_ms), keep=True)
        placed = Placed(
            client_order_id=intent.client_order_id, filled=closed + opened, average_price=price
        )
        return self._state.note_order(intent, "filled", placed)


def _exit_at_price(
    holding: Holding | None, time_ms: Millis, price: Decimal
) -> Exit[Decimal] | None:
    return None if holding is None else exit_at_open(as_open_position(holding), time_ms, price)


def _exit_in_candle(
    holding: Holding | None, high: Decimal, low: Decimal, last_ms: Millis
) -> Exit[Decimal] | None:
    return None if holding is None else exit_inside(as_open_position(holding), high, low, last_ms)
