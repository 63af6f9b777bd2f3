"""The broker of an exchange account: looks up, then places, then protects; reconciles.

An order goes like this:

1. It is looked up by its id, in all lists. What the exchange has is never sent again.
2. The journal claims it, on disk. While another claim is younger than the exchange's receive
   window, its request may still arrive: nobody sends until that is over and the order was looked
   up once more.
3. It is sent once, signed as of the claim. A refusal is `Rejected`; one for the time of the request
   has set the clock, so the order is looked up and sent once more. No reply, or one that leaves
   it open, is looked up a few times; what is not there may still arrive, so it is `Unknown`.
4. It is looked up until it fills no further.
5. Its stop and target are made to stand. Where the exchange refuses them, the position is closed
   again, and the order counts as rejected; where nobody knows, it is `Unknown`.

`Unknown` stops the symbol in all processes, until `reconcile` has settled it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final

import structlog

from llm_trader.clock import Clock
from llm_trader.errors import ExchangeError, StoreError, StoreLockedError
from llm_trader.market.exchange.client import (
    CLOCK_CODES,
    RefusedRequestError,
    UnknownOutcomeError,
)
from llm_trader.timeframe import Millis
from llm_trader.workflow.exchange.journal import (
    ExpectedPosition,
    OrderJournal,
    OrderNote,
    State,
)
from llm_trader.workflow.exchange.venue import AccountVenue, VenueOrder, VenuePosition, with_role
from llm_trader.workflow.instrument import InstrumentRules
from llm_trader.workflow.orders import (
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

# The role of the order that closes a position whose stop was refused.
_UNDO_ROLE: Final = "x"
# Clocks differ by less; so much longer than the receive window a request counts as on its way.
_CLOCK_ERROR_MS: Final = 1000
# A market order is filled within milliseconds, but is seen in lists a little later.
_LOOKS: Final = 8
_FIRST_LOOK_S: Final = 0.05
_ENDS: Final = ("placed", "rejected")
# Refusals that say nothing of the order: too many requests, or a clock that is wrong. Its run may
# send it again.
_PASSING: Final = CLOCK_CODES | {
    "429", "418", "403", "-1003", "-1015", "10006", "10018", "10429",
}  # fmt: skip

_log = structlog.get_logger(__name__)


class ExchangeBroker:
    """`symbols` are those whose fills are asked for. `clock` is for waiting alone.

    `stop_reason` is asked at the last moment before an opening order is sent, as looks and waits
    may take seconds.
    """

    def __init__(
        self,
        venue: AccountVenue,
        journal: OrderJournal,
        clock: Clock,
        *,
        receive_window_ms: Millis,
        symbols: Sequence[str] = (),
        stop_reason: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._venue = venue
        self._stop_reason = stop_reason
        self._journal = journal
        self._clock = clock
        self._void_after_ms = receive_window_ms + _CLOCK_ERROR_MS
        self._symbols = set(symbols)
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def name(self) -> str:
        return self._venue.name

    async def connect(self) -> None:
        """Before anything else. Raises `LlmTraderError` where the account cannot be used."""
        await self._venue.set_clock()
        await self._venue.check()

    async def instrument(self, symbol: str) -> InstrumentRules:
        return await self._venue.instrument(symbol)

    async def quote(self, symbol: str) -> Quote:
        return await self._venue.quote(symbol)

    async def balance(self) -> Balance:
        return await self._venue.balance()

    async def exposures(self) -> dict[str, Decimal]:
        return await self._venue.exposures()

    async def position(self, symbol: str) -> Position:
        return self._as_position(symbol, await self._venue.position(symbol))

    async def fills(self, since_ms: Millis) -> list[Fill]:
        fills: list[Fill] = []
        for symbol in sorted(self._symbols):
            fills += await self._venue.fills(symbol, since_ms)
        return sorted(fills, key=lambda fill: fill.time_ms)

    async def place(self, intent: OrderIntent) -> OrderResult:
        self._symbols.add(intent.symbol)
        async with self._locks[intent.symbol]:
            try:
                try:
                    return await self._place(intent)
                except ExchangeError as error:
                    return self._unknown(intent, error.message)
            except (StoreError, StoreLockedError) as error:
                # The row of an order that was sent is on disk, and has no end.
                return Unknown(client_order_id=intent.client_order_id, reason=error.message)

    async def has_order(self, symbol: str, client_order_id: str) -> bool:
        """An order that never arrived may be sent again. Without a note the exchange is asked."""
        note = self._journal.order(client_order_id)
        if note is None:
            return await self._venue.find(symbol, client_order_id) is not None
        return note.state != "void"

    async def reconcile(self, symbol: str) -> Reconciliation:
        self._symbols.add(symbol)
        async with self._locks[symbol]:
            # Clocks drift, and the exchange refuses requests of another time.
            await self._venue.set_clock()
            settled: list[OrderResult] = []
            for note in self._journal.unsettled(symbol):
                try:
                    result = await self._settle(note)
                except ExchangeError as error:
                    result = self._unknown(note.intent, error.message)
                if not isinstance(result, Unknown):
                    settled.append(result)
            unknown = tuple(n.intent.client_order_id for n in self._journal.unsettled(symbol))
            position, differences = await self._compare(symbol, settled=not unknown)
            return Reconciliation(
                position=position,
                settled=tuple(settled),
                unknown=unknown,
                differences=tuple(differences),
            )

    async def cancel(self, symbol: str) -> None:
        """Withdraws stops and targets that no position is left for; market orders do not wait."""
        if not (await self._venue.position(symbol)).quantity:
            await self._venue.unprotect(symbol)

    async def close(self) -> None:
        self._journal.close()
        await self._venue.close()

    # An order on its way.

    async def _place(self, intent: OrderIntent) -> OrderResult:
        note = self._journal.order(intent.client_order_id)
        if note is not None:
            if note.result is not None and note.state in _ENDS:
                return note.result
            return await self._settle(note, resend=True)
        if intent.kind == "open" and (blocking := self._journal.unsettled(intent.symbol)):
            ids = ", ".join(note.intent.client_order_id for note in blocking)
            return Rejected(
                client_order_id=intent.client_order_id,
                reason=f"nobody knows what became of {ids}; reconcile {intent.symbol} first",
                code="unsettled",
            )
        # Without a journal of it, such as after its loss, the exchange may have the order.
        found = await self._venue.find(intent.symbol, intent.client_order_id)
        return await self._send(intent, found)

    async def _send(
        self, intent: OrderIntent, found: VenueOrder | None, *, again: bool = False
    ) -> OrderResult:
        signed_ms = self._venue.now_ms()
        void_before_ms = signed_ms - self._void_after_ms
        sending = self._journal.claim(intent, signed_ms, void_before_ms=void_before_ms)
        if not sending:
            return self._sent_by_another(intent)
        if found is None:
            if intent.kind == "open" and (reason := self._stop_reason()) is not None:
                return self._not_sent(intent, sending, reason, "kill_switch", "void")
            try:
                found = await self._venue.send(intent, signed_ms)
            except RefusedRequestError as refused:
                code = refused.venue_code
                state: State = "void" if code in _PASSING else "rejected"
                result = self._not_sent(intent, sending, refused.message, code, state)
                if code not in CLOCK_CODES or again or isinstance(result, Unknown):
                    return result
                found = await self._venue.find(intent.symbol, intent.client_order_id)
                return await self._send(intent, found, again=True)
            except UnknownOutcomeError as error:
                found = await self._look(intent)
                if found is None:
                    return self._unknown(intent, error.message)
        return await self._complete(intent, found)

    async def _settle(self, note: OrderNote, *, resend: bool = False) -> OrderResult:
        """What became of an order that has no end in the journal."""
        intent = note.intent
        found = await self._venue.find(intent.symbol, intent.client_order_id)
        if found is None:
            await self._wait_until_void(note)
            found = await self._venue.find(intent.symbol, intent.client_order_id)
        if found is not None:
            return await self._complete(intent, found)
        if resend:
            return await self._send(intent, None)
        return self._not_sent(intent, note.sendings, "the exchange never got it", None, "void")

    async def _wait_until_void(self, note: OrderNote) -> None:
        if note.state == "void":
            return  # its request was refused, or was waited for already
        while (left_ms := note.sent_ms + self._void_after_ms - self._venue.now_ms()) >= 0:
            await self._clock.sleep((left_ms + 1) / 1000)

    async def _look(self, intent: OrderIntent) -> VenueOrder | None:
        """Looks for an order a few times; it may not be in the lists yet."""
        for attempt in range(_LOOKS):
            try:
                found = await self._venue.find(intent.symbol, intent.client_order_id)
            except ExchangeError:
                found = None
            if found is not None:
                return found
            await self._clock.sleep(_FIRST_LOOK_S * 2**attempt)
        return None

    async def _complete(self, intent: OrderIntent, found: VenueOrder | None) -> OrderResult:
        """Follows an order that the exchange has to its end, and protects its position."""
        order = found
        for attempt in range(_LOOKS):
            if order is not None and order.status != "open":
                break
            await self._clock.sleep(_FIRST_LOOK_S * 2**attempt)
            order = await self._venue.find(intent.symbol, intent.client_order_id) or order
        if order is None or order.status == "open":
            return self._unknown(intent, "the exchange has the order and does not fill it")
        if not order.filled:
            return self._rejected(intent, f"the exchange ended it: {order.reason}", order.reason)
        if intent.kind == "open":
            if (refusal := await self._protect(intent)) is not None:
                return refusal
        else:
            await self.cancel(intent.symbol)
        placed = Placed(
            client_order_id=intent.client_order_id,
            filled=order.filled,
            average_price=order.average_price,
            venue_id=order.venue_id,
        )
        await self._note_position(intent)
        self._journal.note(intent.client_order_id, "placed", placed)
        return placed

    async def _protect(self, intent: OrderIntent) -> OrderResult | None:
        try:
            try:
                await self._venue.protect(intent, self._venue.now_ms())
            except RefusedRequestError as refused:
                if refused.venue_code not in CLOCK_CODES:
                    raise
                # The refusal has set the clock; what stands already is not sent again.
                await self._venue.protect(intent, self._venue.now_ms())
        except RefusedRequestError as refused:
            return await self._undo(intent, refused)
        return None

    async def _undo(self, intent: OrderIntent, refused: RefusedRequestError) -> OrderResult | None:
        """Closes a position that cannot be protected; None where it has ended already."""
        position = await self._venue.position(intent.symbol)
        if not position.quantity:
            await self._venue.unprotect(intent.symbol)
            return None
        closing = OrderIntent(
            client_order_id=with_role(intent.client_order_id, _UNDO_ROLE),
            symbol=intent.symbol,
            side="SELL" if position.quantity > 0 else "BUY",
            quantity=abs(position.quantity),
            kind="close",
            created_ms=intent.created_ms,
        )
        _log.error("position_undone", symbol=intent.symbol, reason=refused.message)
        result = await self._place(closing)
        if not isinstance(result, Placed):
            return self._unknown(intent, f"its stop was refused, and so was closing it: {result}")
        reason = f"its stop or target was refused, so the position was closed: {refused.message}"
        return self._rejected(intent, reason, refused.venue_code)

    def _unknown(self, intent: OrderIntent, reason: str) -> OrderResult:
        unknown = Unknown(client_order_id=intent.client_order_id, reason=reason)
        note = self._journal.order(intent.client_order_id)
        if note is None:
            # Nothing was sent, but the exchange did not say whether it has the order.
            self._journal.claim(intent, self._venue.now_ms(), void_before_ms=0)
        if note is None or note.state in ("sending", "unknown"):
            self._end(intent, "unknown", unknown)
        return unknown

    def _not_sent(
        self, intent: OrderIntent, sending: int, reason: str, code: str | None, state: State
    ) -> OrderResult:
        """The end of one sending, unless another process has sent the order again meanwhile."""
        rejected = Rejected(client_order_id=intent.client_order_id, reason=reason, code=code)
        if self._end(intent, state, rejected, sending=sending):
            return rejected
        return self._sent_by_another(intent)

    def _sent_by_another(self, intent: OrderIntent) -> OrderResult:
        note = self._journal.order(intent.client_order_id)
        if note is not None and note.result is not None and note.state in _ENDS:
            return note.result
        return self._unknown(intent, "another process is sending this order")

    def _rejected(self, intent: OrderIntent, reason: str, code: str | None) -> OrderResult:
        rejected = Rejected(client_order_id=intent.client_order_id, reason=reason, code=code)
        self._end(intent, "rejected", rejected)
        return rejected

    def _end(
        self, intent: OrderIntent, state: State, result: OrderResult, *, sending: int | None = None
    ) -> bool:
        noted = self._journal.note(intent.client_order_id, state, result, sending=sending)
        if noted:
            _log.warning("order_not_placed", symbol=intent.symbol, state=state, result=str(result))
        return noted

    # The position.

    async def _note_position(self, intent: OrderIntent) -> None:
        held = await self._venue.position(intent.symbol)
        opened_by = intent.client_order_id if intent.kind == "open" and held.quantity else None
        self._journal.expect(intent.symbol, ExpectedPosition(held.quantity, opened_by))

    async def _compare(self, symbol: str, *, settled: bool) -> tuple[Position, list[str]]:
        held, expected = await self._venue.position(symbol), self._journal.expected(symbol)
        differences = [
            f"the exchange has an order that is not ours: {order_id}"
            for order_id in await self._venue.foreign_orders(symbol)
        ]
        opened_by = expected.client_order_id
        if held.quantity != expected.quantity:
            differences.append(
                f"the position is {held.quantity:f}, after {expected.quantity:f} when it was seen "
                "last: a stop, a target or a person has changed it"
            )
            if held.quantity * expected.quantity <= 0:
                opened_by = None
        if settled:
            self._journal.expect(symbol, ExpectedPosition(held.quantity, opened_by))
            if not held.quantity:
                await self._venue.unprotect(symbol)
        if held.quantity and held.stop_price is None:
            differences.append("the position has no stop at the exchange")
        return self._as_position(symbol, held), differences

    def _as_position(self, symbol: str, held: VenuePosition) -> Position:
        """With what the journal knows of the order that opened it."""
        expected, opened_by = self._journal.expected(symbol), None
        if expected.quantity * held.quantity > 0 and expected.client_order_id is not None:
            opened_by = self._journal.order(expected.client_order_id)
        waiting = tuple(note.intent.client_order_id for note in self._journal.unsettled(symbol))
        return Position(
            symbol=symbol,
            quantity=held.quantity,
            entry_price=held.entry_price if held.quantity else None,
            opened_ms=None if opened_by is None else opened_by.intent.created_ms,
            stop_price=held.stop_price,
            target_price=held.target_price,
            close_at_ms=None if opened_by is None else opened_by.intent.close_at_ms,
            opened_by=None if opened_by is None else opened_by.intent.client_order_id,
            waiting_orders=waiting,
        )
