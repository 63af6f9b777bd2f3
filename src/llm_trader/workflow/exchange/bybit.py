"""An account at Bybit v5, category `linear`, in one-way mode.

Stop and target belong to the position: an order brings them with it, and they end with it. The
reply to an order has no more than its id, so what became of it is looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, TypeVar

from llm_trader.errors import ExchangeError, InvalidInputError
from llm_trader.market.exchange.client import ExchangeClient, RefusedRequestError
from llm_trader.market.exchange.replies import MalformedReplyError, a_dict, a_list, a_time
from llm_trader.timeframe import Millis
from llm_trader.workflow.exchange.venue import (
    OrderStatus,
    VenueOrder,
    VenuePosition,
    a_decimal,
    a_price,
    a_text,
)
from llm_trader.workflow.instrument import InstrumentRules
from llm_trader.workflow.orders import ZERO, Balance, Fill, OrderIntent, Quote, is_our_order_id

T = TypeVar("T")

_DUPLICATE: Final = "110072"
_NOT_MODIFIED: Final = "34040"
_STATUSES: Final[dict[str, OrderStatus]] = {
    "Created": "open",
    "New": "open",
    "PartiallyFilled": "open",
    "Untriggered": "open",
    "Triggered": "open",
    "Filled": "done",
    "Cancelled": "done",
    "PartiallyFilledCanceled": "done",
    "Deactivated": "done",
    "Rejected": "refused",
}
_OF_A_POSITION: Final = frozenset(
    {"StopLoss", "TakeProfit", "PartialStopLoss", "PartialTakeProfit", "TrailingStop"}
)
_LINEAR: Final = {"category": "linear"}


class BybitAccount:
    name = "bybit"

    def __init__(self, client: ExchangeClient) -> None:
        self._client = client
        self._rules: dict[str, InstrumentRules] = {}

    def now_ms(self) -> Millis:
        return self._client.venue_now_ms()

    async def set_clock(self) -> None:
        await self._client.set_clock(
            "publicGetV5MarketTime", lambda reply: a_time(a_dict(reply, "time").get("time"), "time")
        )

    async def check(self) -> None:
        """Each symbol has a mode of its own, which its position tells."""

    async def instrument(self, symbol: str) -> InstrumentRules:
        if symbol not in self._rules:
            parameters = {**_LINEAR, "symbol": symbol}
            rows = await self._ask_list("publicGetV5MarketInstrumentsInfo", parameters, _rules_of)
            if not rows:
                raise InvalidInputError(f"Bybit trades no linear contract {symbol}")
            self._rules[symbol] = rows[0]
        return self._rules[symbol]

    async def quote(self, symbol: str) -> Quote:
        def read(reply: Any) -> Quote:
            rows = a_list(_result(reply).get("list"), "list")
            price = a_decimal(a_dict(rows[0] if rows else None, "ticker").get("lastPrice"), "price")
            return Quote(price, a_time(reply.get("time"), "time"))

        return await self._client.ask(
            "publicGetV5MarketTickers", {**_LINEAR, "symbol": symbol}, read
        )

    async def position(self, symbol: str) -> VenuePosition:
        rows = await self._ask_list(
            "privateGetV5PositionList", {**_LINEAR, "symbol": symbol}, lambda row: row
        )
        if any(str(row.get("positionIdx")) != "0" for row in rows):
            raise ExchangeError(
                f"the Bybit account trades {symbol} in hedge mode, and this program in one-way "
                "mode; change the position mode of the symbol"
            )
        if not rows:
            return VenuePosition()
        row = rows[0]
        size = a_decimal(row.get("size") or "0", "size")
        if not size:
            return VenuePosition()
        return VenuePosition(
            quantity=size if row.get("side") == "Buy" else -size,
            entry_price=a_price(row.get("avgPrice"), "avgPrice"),
            stop_price=a_price(row.get("stopLoss"), "stopLoss"),
            target_price=a_price(row.get("takeProfit"), "takeProfit"),
        )

    async def balance(self) -> Balance:
        rows = await self._ask_list(
            "privateGetV5AccountWalletBalance", {"accountType": "UNIFIED"}, lambda row: row
        )
        if not rows:
            raise ExchangeError("Bybit says nothing of the balance of the unified account")
        row = rows[0]
        return Balance(
            currency="USD",
            equity=a_decimal(row.get("totalEquity"), "totalEquity"),
            available=a_decimal(row.get("totalAvailableBalance"), "totalAvailableBalance"),
            unrealized=a_decimal(row.get("totalPerpUPL"), "totalPerpUPL"),
        )

    async def exposures(self) -> dict[str, Decimal]:
        # 200 positions is the longest page.
        parameters = {**_LINEAR, "settleCoin": "USDT", "limit": 200}
        rows = await self._ask_list("privateGetV5PositionList", parameters, lambda row: row)
        return {
            str(row.get("symbol")): a_decimal(row.get("positionValue"), "positionValue")
            for row in rows
            if a_decimal(row.get("size") or "0", "size")
        }

    async def fills(self, symbol: str, since_ms: Millis) -> list[Fill]:
        parameters = {**_LINEAR, "symbol": symbol, "startTime": since_ms, "limit": 100}
        rows = await self._ask_list("privateGetV5ExecutionList", parameters, lambda row: row)
        fills = [_fill(row) for row in rows if row.get("execType") == "Trade"]
        return sorted(fills, key=lambda fill: fill.time_ms)

    async def find(self, symbol: str, client_order_id: str) -> VenueOrder | None:
        parameters = {**_LINEAR, "symbol": symbol, "orderLinkId": client_order_id}
        # The first has open orders and some that ended lately, the second all that ended.
        for endpoint in ("privateGetV5OrderRealtime", "privateGetV5OrderHistory"):
            if rows := await self._ask_list(endpoint, parameters, _order):
                return rows[0]
        return None

    async def send(self, intent: OrderIntent, signed_ms: Millis) -> VenueOrder | None:
        parameters = {
            **_LINEAR,
            "symbol": intent.symbol,
            "side": "Buy" if intent.side == "BUY" else "Sell",
            "orderType": "Market",
            "qty": f"{intent.quantity:f}",
            "orderLinkId": intent.client_order_id,
            "positionIdx": 0,
            "reduceOnly": intent.kind == "close",
            **_protection(intent),
        }
        try:
            return await self._client.send(
                "privatePostV5OrderCreate", parameters, _accepted, signed_ms=signed_ms
            )
        except RefusedRequestError as refused:
            if refused.venue_code == _DUPLICATE:
                return None
            raise

    async def protect(self, intent: OrderIntent, signed_ms: Millis) -> None:
        if not _protection(intent):
            return
        position = await self.position(intent.symbol)
        standing = position.stop_price, position.target_price
        if standing == (intent.stop_price, intent.target_price):
            return
        parameters = {**_LINEAR, "symbol": intent.symbol, "positionIdx": 0, **_protection(intent)}
        try:
            await self._client.send(
                "privatePostV5PositionTradingStop", parameters, _result, signed_ms=signed_ms
            )
        except RefusedRequestError as refused:
            if refused.venue_code != _NOT_MODIFIED:
                raise

    async def unprotect(self, symbol: str) -> None:
        """Nothing is left of them when the position has ended."""

    async def foreign_orders(self, symbol: str) -> list[str]:
        rows = await self._ask_list(
            "privateGetV5OrderRealtime", {**_LINEAR, "symbol": symbol}, lambda row: row
        )
        return [
            str(row.get("orderLinkId") or row.get("orderId"))
            for row in rows
            if row.get("stopOrderType") not in _OF_A_POSITION
            and _STATUSES.get(str(row.get("orderStatus"))) == "open"
            and not is_our_order_id(str(row.get("orderLinkId")))
        ]

    async def _ask_list(
        self, endpoint: str, parameters: Mapping[str, Any], read: Callable[[dict[str, Any]], T]
    ) -> list[T]:
        return await self._client.ask(
            endpoint,
            parameters,
            lambda reply: [
                read(a_dict(row, "row")) for row in a_list(_result(reply).get("list"), "list")
            ],
        )

    async def close(self) -> None:
        await self._client.close()


def _result(reply: Any) -> dict[str, Any]:
    return a_dict(a_dict(reply, "reply").get("result"), "result")


def _protection(intent: OrderIntent) -> dict[str, Any]:
    prices = {"stopLoss": intent.stop_price, "takeProfit": intent.target_price}
    given = {name: f"{price:f}" for name, price in prices.items() if price is not None}
    return {**given, "tpslMode": "Full"} if given else {}


def _rules_of(row: dict[str, Any]) -> InstrumentRules:
    lot = a_dict(row.get("lotSizeFilter"), "lotSizeFilter")
    price = a_dict(row.get("priceFilter"), "priceFilter")
    return InstrumentRules(
        symbol=str(row.get("symbol")),
        quantity_step=a_decimal(lot.get("qtyStep"), "qtyStep"),
        price_tick=a_decimal(price.get("tickSize"), "tickSize"),
        min_quantity=a_decimal(lot.get("minOrderQty"), "minOrderQty"),
        max_quantity=a_price(lot.get("maxMktOrderQty") or lot.get("maxOrderQty"), "maxOrderQty"),
        min_notional=a_decimal(lot.get("minNotionalValue") or "0", "minNotionalValue"),
    )


def _accepted(reply: Any) -> VenueOrder:
    row = _result(reply)
    return VenueOrder(
        client_order_id=a_text(row.get("orderLinkId"), "orderLinkId"),
        venue_id=a_text(row.get("orderId"), "orderId"),
        status="open",
    )


def _order(row: dict[str, Any]) -> VenueOrder:
    status = _STATUSES.get(str(row.get("orderStatus")))
    if status is None:
        raise MalformedReplyError(f"an order has the status {row.get('orderStatus')!r}")
    reason = str(row.get("rejectReason") or "")
    if reason in ("", "EC_NoError"):
        reason = str(row.get("orderStatus"))
    return VenueOrder(
        client_order_id=a_text(row.get("orderLinkId"), "orderLinkId"),
        venue_id=a_text(row.get("orderId"), "orderId"),
        status=status,
        filled=a_decimal(row.get("cumExecQty") or "0", "cumExecQty"),
        average_price=a_price(row.get("avgPrice"), "avgPrice"),
        reason=reason,
    )


def _fill(row: dict[str, Any]) -> Fill:
    closed = a_decimal(row.get("closedSize") or "0", "closedSize")
    profit = row.get("execPnl")
    realized = None if closed and profit in (None, "") else a_decimal(profit or "0", "execPnl")
    return Fill(
        client_order_id=str(row.get("orderLinkId") or row.get("orderId")),
        symbol=str(row.get("symbol")),
        side="BUY" if row.get("side") == "Buy" else "SELL",
        time_ms=a_time(row.get("execTime"), "execTime"),
        price=a_decimal(row.get("execPrice"), "execPrice"),
        quantity=a_decimal(row.get("execQty"), "execQty"),
        fee=a_decimal(row.get("execFee"), "execFee"),
        slippage=ZERO,
        realized=realized,
        opens=not closed,
        reason="order",
    )
