"""The account interface of Binance USD-M futures, with its Algo service of 2025-12-09."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

from tests.exchange.accounts import FEE, AccountRefusalError, Conditional, Order
from tests.exchange.binance import RefusedError
from tests.exchange.markets import Market
from tests.exchange.signatures import API_KEY, SignedRequest, digest

_PRIVATE = {
    "/fapi/v1/order", "/fapi/v1/algoOrder", "/fapi/v1/openOrders", "/fapi/v1/openAlgoOrders",
    "/fapi/v1/allAlgoOrders", "/fapi/v1/userTrades", "/fapi/v1/positionSide/dual",
    "/fapi/v3/account", "/fapi/v3/positionRisk",
}  # fmt: skip
_CONDITIONAL: dict[str, Literal["stop", "target"]] = {
    "STOP_MARKET": "stop",
    "TAKE_PROFIT_MARKET": "target",
}
_REFUSALS = {
    "step": (-1111, "Precision is over the maximum defined for this asset."),
    "notional": (-4164, "Order's notional must be no smaller than 5 (unless you choose reduce "
                        "only)."),
    "margin": (-2019, "Margin is insufficient."),
    "reduce_only": (-2022, "ReduceOnly Order is rejected."),
    "triggers": (-2021, "Order would immediately trigger."),
}  # fmt: skip


def is_private(request: SignedRequest) -> bool:
    return request.path in _PRIVATE


def answer(request: SignedRequest, market: Market) -> Any:
    _check(request, market.now_ms)
    parameters, account, now_ms = request.parameters, market.account, market.now_ms
    symbol = parameters.get("symbol", "")
    match request.method, request.path.rpartition("/")[2]:
        case "GET", "dual":
            return {"dualSidePosition": account.hedge_mode}
        case "GET", "account":
            equity = account.wallet + account.unrealized()
            return {
                "totalWalletBalance": str(account.wallet),
                "totalUnrealizedProfit": str(account.unrealized()),
                "totalMarginBalance": str(equity),
                "availableBalance": str(equity),
            }
        case "GET", "positionRisk":
            symbols = [symbol] if symbol else list(account.positions)
            return [
                {
                    "symbol": name,
                    "positionSide": "BOTH",
                    "positionAmt": str(account.position(name).quantity),
                    "entryPrice": str(account.position(name).entry_price),
                    "markPrice": str(account.price(name)),
                    "notional": str(account.position(name).quantity * account.price(name)),
                }
                for name in symbols
                if account.position(name).quantity
            ]
        case "POST", "order":
            return _order(_place(parameters, market))
        case "GET", "order":
            # An id that was used again is that of the latest order.
            return _order(_latest(account.orders, parameters.get("origClientOrderId"), symbol))
        case "GET", "openOrders":
            return [_order(o) for o in account.orders if o.status == "open" and o.symbol == symbol]
        case "POST", "algoOrder":
            return _algo(_condition(parameters, market))
        case "GET", "algoOrder":
            found = _latest(account.conditionals, parameters.get("clientAlgoId"), symbol)
            if found.status != "open":
                raise RefusedError(-2013, "Order does not exist.")
            return _algo(found)
        case "DELETE", "algoOrder":
            found = _latest(account.conditionals, parameters.get("clientAlgoId"), None)
            if found.status != "open":
                raise RefusedError(-2011, "Unknown order sent.")
            found.status = "cancelled"
            return {"algoId": found.venue_id, "clientAlgoId": found.client_id, "code": "200",
                    "msg": "success"}  # fmt: skip
        case "GET", "openAlgoOrders":
            return [_algo(c) for c in account.open_conditionals(symbol)]
        case "GET", "allAlgoOrders":
            return [_algo(c) for c in account.conditionals if c.symbol == symbol]
        case "GET", "userTrades":
            since = int(parameters.get("startTime", now_ms - 7 * 86_400_000))
            return [
                {
                    "symbol": trade.order.symbol,
                    "orderId": trade.order.venue_id,
                    "side": "BUY" if trade.side > 0 else "SELL",
                    "price": str(trade.price),
                    "qty": str(trade.quantity),
                    "realizedPnl": str(trade.realized),
                    "commission": str(trade.quantity * trade.price * FEE),
                    "time": trade.time_ms,
                }
                for trade in account.trades
                if trade.order.symbol == symbol and trade.time_ms >= since
            ]
    return None


def _check(request: SignedRequest, now_ms: int) -> None:
    if request.headers.get("x-mbx-apikey") != API_KEY:
        raise RefusedError(-2015, "Invalid API-key, IP, or permissions for action.")
    signed, _, signature = (request.body or request.raw_query).rpartition("&signature=")
    if signature != digest(signed):
        raise RefusedError(-1022, "Signature for this request is not valid.")
    time_ms = int(request.parameters["timestamp"])
    if not -1000 < now_ms - time_ms <= int(request.parameters.get("recvWindow", 5000)):
        raise RefusedError(-1021, "Timestamp for this request is outside of the recvWindow.")


def _latest(items: list[Any], client_id: str | None, symbol: str | None) -> Any:
    found = [i for i in items if i.client_id == client_id and symbol in (None, i.symbol)]
    if not found:
        raise RefusedError(-2013, "Order does not exist.")
    return found[-1]


def _place(parameters: dict[str, str], market: Market) -> Order:
    account, client_id = market.account, parameters["newClientOrderId"]
    if parameters["type"] in _CONDITIONAL:
        raise RefusedError(
            -4120,
            "Order type not supported for this endpoint. Please use the Algo Order API endpoints "
            "instead.",
        )
    if any(o.client_id == client_id and o.status == "open" for o in account.orders):
        raise RefusedError(-4116, "ClientOrderId is duplicated.")
    try:
        return account.order(
            client_id,
            parameters["symbol"],
            1 if parameters["side"] == "BUY" else -1,
            Decimal(parameters["quantity"]),
            reduce_only=parameters.get("reduceOnly") == "true",
            time_ms=market.now_ms,
        )
    except AccountRefusalError as refusal:
        raise RefusedError(*_REFUSALS[str(refusal)]) from None


def _condition(parameters: dict[str, str], market: Market) -> Conditional:
    account, client_id = market.account, parameters["clientAlgoId"]
    if parameters.get("algoType") != "CONDITIONAL" or parameters.get("closePosition") != "true":
        raise RefusedError(-1102, "Mandatory parameter was not sent.")
    if any(c.client_id == client_id and c.status == "open" for c in account.conditionals):
        raise RefusedError(-4116, "ClientOrderId is duplicated.")
    try:
        return account.condition(
            client_id,
            parameters["symbol"],
            _CONDITIONAL[parameters["type"]],
            1 if parameters["side"] == "BUY" else -1,
            Decimal(parameters["triggerPrice"]),
            market.now_ms,
        )
    except AccountRefusalError as refusal:
        raise RefusedError(*_REFUSALS[str(refusal)]) from None


def _order(order: Order) -> dict[str, Any]:
    status = {"filled": "FILLED", "ended": "EXPIRED"}.get(order.status)
    if status is None:
        status = "PARTIALLY_FILLED" if order.filled else "NEW"
    return {
        "orderId": order.venue_id,
        "symbol": order.symbol,
        "status": status,
        "clientOrderId": order.client_id or "autoclose",
        "price": "0",
        "avgPrice": str(order.price),
        "origQty": str(order.quantity),
        "executedQty": str(order.filled),
        "type": "MARKET",
        "reduceOnly": order.reduce_only,
        "side": "BUY" if order.side > 0 else "SELL",
        "positionSide": "BOTH",
        "time": order.time_ms,
        "updateTime": order.time_ms,
    }


def _algo(conditional: Conditional) -> dict[str, Any]:
    kinds = {kind: name for name, kind in _CONDITIONAL.items()}
    statuses = {"open": "NEW", "triggered": "FINISHED", "cancelled": "CANCELED"}
    return {
        "algoId": conditional.venue_id,
        "clientAlgoId": conditional.client_id,
        "algoType": "CONDITIONAL",
        "orderType": kinds[conditional.kind],
        "symbol": conditional.symbol,
        "side": "BUY" if conditional.side > 0 else "SELL",
        "positionSide": "BOTH",
        "algoStatus": statuses[conditional.status],
        "triggerPrice": str(conditional.trigger),
        "closePosition": True,
        "createTime": conditional.time_ms,
    }
