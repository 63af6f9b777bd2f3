"""An account at Binance USD-M futures.

Since 2025-12-09 conditional orders live in the Algo service: they have ids and lists of their own,
and the older endpoint refuses them (-4120). So a stop or target is looked for in both lists, and
one that has ended only stands in the history of the Algo service.

A client order id may be used again once its order is filled. So an order is looked up before it
is sent, and -4116 (an open order has this id) is no failure: it is there already.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from llm_trader.errors import ConfigurationError, InvalidInputError
from llm_trader.market.exchange.client import ExchangeClient, RefusedRequestError
from llm_trader.market.exchange.replies import MalformedReplyError, a_dict, a_list, a_time
from llm_trader.timeframe import Millis
from llm_trader.workflow.exchange.venue import (
    STOP_ROLE,
    TARGET_ROLE,
    OrderStatus,
    VenueOrder,
    VenuePosition,
    a_decimal,
    a_price,
    a_text,
    with_role,
)
from llm_trader.workflow.instrument import InstrumentRules
from llm_trader.workflow.orders import (
    ZERO,
    Balance,
    Fill,
    OrderIntent,
    Quote,
    is_our_order_id,
)

_NOT_FOUND: Final = frozenset({"-2013", "-2011"})
_DUPLICATE: Final = frozenset({"-4116", "-20132"})
_STATUSES: Final[dict[str, OrderStatus]] = {
    "NEW": "open",
    "PARTIALLY_FILLED": "open",
    "FILLED": "done",
    "CANCELED": "done",
    "EXPIRED": "done",
    "EXPIRED_IN_MATCH": "done",
    "REJECTED": "refused",
    # Of the Algo service.
    "TRIGGERING": "open",
    "TRIGGERED": "done",
    "FINISHED": "done",
}
_CONDITIONAL: Final = {STOP_ROLE: "STOP_MARKET", TARGET_ROLE: "TAKE_PROFIT_MARKET"}
_CURRENCY: Final = "USDT"


class BinanceAccount:
    name = "binance"

    def __init__(self, client: ExchangeClient) -> None:
        self._client = client
        self._rules: dict[str, InstrumentRules] = {}

    def now_ms(self) -> Millis:
        return self._client.venue_now_ms()

    async def set_clock(self) -> None:
        await self._client.set_clock(
            "fapiPublicGetTime",
            lambda reply: a_time(a_dict(reply, "time").get("serverTime"), "serverTime"),
        )

    async def check(self) -> None:
        mode = await self._client.ask(
            "fapiPrivateGetPositionSideDual",
            {},
            lambda reply: a_dict(reply, "dual").get("dualSidePosition"),
        )
        if mode is not False:
            raise ConfigurationError(
                "the Binance account is in hedge mode, and this program trades in one-way mode; "
                "change the position mode in the account's preferences"
            )

    async def instrument(self, symbol: str) -> InstrumentRules:
        if symbol not in self._rules:
            self._rules |= await self._client.ask("fapiPublicGetExchangeInfo", {}, _read_rules)
        if symbol not in self._rules:
            raise InvalidInputError(f"Binance trades no contract {symbol}")
        return self._rules[symbol]

    async def quote(self, symbol: str) -> Quote:
        def read(reply: Any) -> Quote:
            row = a_dict(reply, "ticker")
            price = a_decimal(row.get("price"), "price")
            return Quote(price, a_time(row.get("time"), "time"))

        return await self._client.ask("fapiPublicGetTickerPrice", {"symbol": symbol}, read)

    async def position(self, symbol: str) -> VenuePosition:
        def read(reply: Any) -> tuple[Decimal, Decimal | None]:
            rows = [a_dict(row, "position") for row in a_list(reply, "positionRisk")]
            held = [row for row in rows if row.get("symbol") == symbol]
            if not held:  # without a position there is no row
                return ZERO, None
            quantity = a_decimal(held[0].get("positionAmt"), "positionAmt")
            return quantity, a_price(held[0].get("entryPrice"), "entryPrice") if quantity else None

        quantity, entry_price = await self._client.ask(
            "fapiPrivateV3GetPositionRisk", {"symbol": symbol}, read
        )
        prices: dict[str, Decimal] = {}
        if quantity:
            for row in await self._algo_orders(symbol):
                price = a_price(row.get("triggerPrice"), "triggerPrice")
                if price is not None:
                    prices[str(row.get("orderType"))] = price
        return VenuePosition(
            quantity=quantity,
            entry_price=entry_price,
            stop_price=prices.get(_CONDITIONAL[STOP_ROLE]),
            target_price=prices.get(_CONDITIONAL[TARGET_ROLE]),
        )

    async def balance(self) -> Balance:
        def read(reply: Any) -> Balance:
            row = a_dict(reply, "account")
            return Balance(
                currency=_CURRENCY,
                equity=a_decimal(row.get("totalMarginBalance"), "totalMarginBalance"),
                available=a_decimal(row.get("availableBalance"), "availableBalance"),
                unrealized=a_decimal(row.get("totalUnrealizedProfit"), "totalUnrealizedProfit"),
            )

        return await self._client.ask("fapiPrivateV3GetAccount", {}, read)

    async def exposures(self) -> dict[str, Decimal]:
        def read(reply: Any) -> dict[str, Decimal]:
            rows = [a_dict(row, "position") for row in a_list(reply, "positionRisk")]
            notionals = {
                str(r.get("symbol")): a_decimal(r.get("notional"), "notional") for r in rows
            }
            return {symbol: abs(notional) for symbol, notional in notionals.items() if notional}

        return await self._client.ask("fapiPrivateV3GetPositionRisk", {}, read)

    async def fills(self, symbol: str, since_ms: Millis) -> list[Fill]:
        parameters = {"symbol": symbol, "startTime": since_ms, "limit": 1000}
        return await self._client.ask(
            "fapiPrivateGetUserTrades",
            parameters,
            lambda reply: [_fill(a_dict(row, "trade")) for row in a_list(reply, "userTrades")],
        )

    async def find(self, symbol: str, client_order_id: str) -> VenueOrder | None:
        role = client_order_id[-1]
        if role not in _CONDITIONAL:
            parameters = {"symbol": symbol, "origClientOrderId": client_order_id}
            return await self._look_up("fapiPrivateGetOrder", parameters, _order)
        parameters = {"symbol": symbol, "clientAlgoId": client_order_id}
        order = await self._look_up("fapiPrivateGetAlgoOrder", parameters, _algo_order)
        # One that has ended may only be in the history, and one from before 2025-12-09 among the
        # plain orders.
        return (
            order
            or await self._find_ended(symbol, client_order_id)
            or await self._look_up(
                "fapiPrivateGetOrder",
                {"symbol": symbol, "origClientOrderId": client_order_id},
                _order,
            )
        )

    async def _find_ended(self, symbol: str, client_order_id: str) -> VenueOrder | None:
        rows = await self._client.ask(
            "fapiPrivateGetAllAlgoOrders",
            {"symbol": symbol, "limit": 100},
            lambda reply: [a_dict(row, "order") for row in a_list(reply, "allAlgoOrders")],
        )
        found = [row for row in rows if row.get("clientAlgoId") == client_order_id]
        return _algo_order(found[0]) if found else None

    async def _look_up(
        self, endpoint: str, parameters: Mapping[str, Any], read: Any
    ) -> VenueOrder | None:
        try:
            order: VenueOrder = await self._client.ask(endpoint, parameters, read)
        except RefusedRequestError as refused:
            if refused.venue_code in _NOT_FOUND:
                return None
            raise
        return order

    async def send(self, intent: OrderIntent, signed_ms: Millis) -> VenueOrder | None:
        parameters = {
            "symbol": intent.symbol,
            "side": intent.side,
            "type": "MARKET",
            "quantity": f"{intent.quantity:f}",
            "newClientOrderId": intent.client_order_id,
            "newOrderRespType": "RESULT",
        }
        if intent.kind == "close":
            parameters["reduceOnly"] = "true"
        try:
            return await self._client.send(
                "fapiPrivatePostOrder", parameters, _order, signed_ms=signed_ms
            )
        except RefusedRequestError as refused:
            if refused.venue_code in _DUPLICATE:
                return None
            raise

    async def protect(self, intent: OrderIntent, signed_ms: Millis) -> None:
        prices = {STOP_ROLE: intent.stop_price, TARGET_ROLE: intent.target_price}
        # Those of a position that has ended would close the new one.
        await self._withdraw(intent.symbol, but_of=intent.client_order_id)
        standing = {str(row.get("clientAlgoId")) for row in await self._algo_orders(intent.symbol)}
        for role, price in prices.items():
            order_id = with_role(intent.client_order_id, role)
            if price is None or order_id in standing:
                continue
            parameters = {
                "algoType": "CONDITIONAL",
                "symbol": intent.symbol,
                "side": "SELL" if intent.side == "BUY" else "BUY",
                "type": _CONDITIONAL[role],
                "triggerPrice": f"{price:f}",
                "closePosition": "true",
                "workingType": "CONTRACT_PRICE",
                "clientAlgoId": order_id,
            }
            try:
                await self._client.send(
                    "fapiPrivatePostAlgoOrder", parameters, _algo_order, signed_ms=signed_ms
                )
            except RefusedRequestError as refused:
                if refused.venue_code not in _DUPLICATE:
                    raise

    async def unprotect(self, symbol: str) -> None:
        await self._withdraw(symbol, but_of="")

    async def _withdraw(self, symbol: str, *, but_of: str) -> None:
        """Cancels stops and targets of our other orders."""
        for row in await self._algo_orders(symbol):
            order_id = str(row.get("clientAlgoId"))
            if not is_our_order_id(order_id) or with_role(order_id, "o") == but_of:
                continue
            try:
                await self._client.send(
                    "fapiPrivateDeleteAlgoOrder", {"clientAlgoId": order_id}, lambda _: None
                )
            except RefusedRequestError as refused:
                if refused.venue_code not in _NOT_FOUND:  # it has ended meanwhile
                    raise

    async def foreign_orders(self, symbol: str) -> list[str]:
        plain = await self._client.ask(
            "fapiPrivateGetOpenOrders",
            {"symbol": symbol},
            lambda reply: [a_dict(row, "order") for row in a_list(reply, "openOrders")],
        )
        ids = [str(row.get("clientOrderId")) for row in plain]
        ids += [str(row.get("clientAlgoId")) for row in await self._algo_orders(symbol)]
        return [order_id for order_id in ids if not is_our_order_id(order_id)]

    async def _algo_orders(self, symbol: str) -> list[dict[str, Any]]:
        return await self._client.ask(
            "fapiPrivateGetOpenAlgoOrders",
            {"symbol": symbol},
            lambda reply: [a_dict(row, "order") for row in a_list(reply, "openAlgoOrders")],
        )

    async def close(self) -> None:
        await self._client.close()


def _read_rules(reply: Any) -> dict[str, InstrumentRules]:
    symbols = a_list(a_dict(reply, "exchangeInfo").get("symbols"), "symbols")
    return {str(row.get("symbol")): _rules_of(a_dict(row, "symbol")) for row in symbols}


def _rules_of(row: dict[str, Any]) -> InstrumentRules:
    filters = {str(f.get("filterType")): f for f in a_list(row.get("filters"), "filters")}
    lot = filters.get("MARKET_LOT_SIZE") or filters.get("LOT_SIZE")
    price = filters.get("PRICE_FILTER")
    if lot is None or price is None:
        raise MalformedReplyError(f"{row.get('symbol')} has no step or no tick")
    # The step of market orders may be 0, which means that of all orders.
    step = a_price(lot.get("stepSize"), "stepSize") or a_decimal(
        filters["LOT_SIZE"].get("stepSize"), "stepSize"
    )
    notional = filters.get("MIN_NOTIONAL", {}).get("notional", "0")
    return InstrumentRules(
        symbol=str(row.get("symbol")),
        quantity_step=step,
        price_tick=a_decimal(price.get("tickSize"), "tickSize"),
        min_quantity=a_decimal(lot.get("minQty"), "minQty"),
        max_quantity=a_price(lot.get("maxQty"), "maxQty"),
        min_notional=a_decimal(notional, "notional"),
    )


def _order(reply: Any) -> VenueOrder:
    row = a_dict(reply, "order")
    status = _STATUSES.get(str(row.get("status")))
    if status is None:
        raise MalformedReplyError(f"an order has the status {row.get('status')!r}")
    return VenueOrder(
        client_order_id=a_text(row.get("clientOrderId"), "clientOrderId"),
        venue_id=a_text(row.get("orderId"), "orderId"),
        status=status,
        filled=a_decimal(row.get("executedQty"), "executedQty"),
        average_price=a_price(row.get("avgPrice"), "avgPrice"),
        reason=str(row.get("status")),
    )


def _algo_order(reply: Any) -> VenueOrder:
    row = a_dict(reply, "order")
    status = _STATUSES.get(str(row.get("algoStatus")))
    if status is None:
        raise MalformedReplyError(f"an order has the status {row.get('algoStatus')!r}")
    return VenueOrder(
        client_order_id=a_text(row.get("clientAlgoId"), "clientAlgoId"),
        venue_id=a_text(row.get("algoId"), "algoId"),
        status=status,
        reason=str(row.get("algoStatus")),
    )


def _fill(row: dict[str, Any]) -> Fill:
    realized = a_decimal(row.get("realizedPnl"), "realizedPnl")
    return Fill(
        client_order_id=str(row.get("orderId")),
        symbol=str(row.get("symbol")),
        side="BUY" if row.get("side") == "BUY" else "SELL",
        time_ms=a_time(row.get("time"), "time"),
        price=a_decimal(row.get("price"), "price"),
        quantity=a_decimal(row.get("qty"), "qty"),
        fee=a_decimal(row.get("commission"), "commission"),
        slippage=ZERO,
        realized=realized,
        # Binance does not say; what closes has a profit or a loss, but for the rarest of prices.
        opens=not realized,
        reason="order",
    )
