"""The account interface of Bybit v5: unified account, category `linear`."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tests.exchange.accounts import FEE, Account, AccountRefusalError, Order
from tests.exchange.bybit import RefusedError
from tests.exchange.markets import Market
from tests.exchange.signatures import API_KEY, SignedRequest, digest

_PRIVATE = ("/v5/order/", "/v5/position/", "/v5/account/", "/v5/execution/")
_REFUSALS = {
    "step": (10001, "Qty invalid"),
    "notional": (110094, "Order does not meet minimum order value 5USDT"),
    "margin": (110007, "ab not enough for new order"),
    "reduce_only": (110017, "current position is zero, cannot fix reduce-only order qty"),
    "triggers": (10001, "StopLoss set for Buy position should lower than base_price"),
}
# How long an order that has ended is still in the list of open ones.
_LATELY_MS = 10_000


def is_private(request: SignedRequest) -> bool:
    return request.path.startswith(_PRIVATE)


def answer(request: SignedRequest, market: Market) -> Any:
    _check(request, market.now_ms)
    result = _result(request, market)
    if result is None:
        return None
    return {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {},
            "time": market.now_ms}  # fmt: skip


def _result(request: SignedRequest, market: Market) -> Any:
    parameters, account, now_ms = request.parameters, market.account, market.now_ms
    symbol = parameters.get("symbol", "")
    match request.path:
        case "/v5/account/wallet-balance":
            equity = str(account.wallet + account.unrealized())
            row = {"accountType": "UNIFIED", "totalEquity": equity,
                   "totalAvailableBalance": equity,
                   "totalPerpUPL": str(account.unrealized())}  # fmt: skip
            return {"list": [row]}
        case "/v5/position/list":
            symbols = [symbol] if symbol else list(account.positions)
            return {"list": [_position(account, name) for name in symbols]}
        case "/v5/position/trading-stop":
            return _trading_stop(account, parameters)
        case "/v5/order/create":
            order = _create(parameters, market)
            return {"orderId": str(order.venue_id), "orderLinkId": order.client_id}
        case "/v5/order/realtime" | "/v5/order/history":
            lately = request.path.endswith("realtime")
            rows = [
                _order(order)
                for order in reversed(account.orders)
                if order.symbol == symbol
                and parameters.get("orderLinkId", order.client_id) == order.client_id
                and (order.status == "open" or (now_ms - order.time_ms < _LATELY_MS) == lately)
            ]
            return {"category": "linear", "list": rows, "nextPageCursor": ""}
        case "/v5/execution/list":
            since = int(parameters.get("startTime", 0))
            return {
                "list": [
                    {
                        "symbol": trade.order.symbol,
                        "orderId": str(trade.order.venue_id),
                        "orderLinkId": trade.order.client_id,
                        "side": "Buy" if trade.side > 0 else "Sell",
                        "execPrice": str(trade.price),
                        "execQty": str(trade.quantity),
                        "execFee": str(trade.quantity * trade.price * FEE),
                        "execType": "Trade",
                        "execTime": str(trade.time_ms),
                        "closedSize": str(trade.closed),
                        "execPnl": str(trade.realized),
                    }
                    for trade in reversed(account.trades)
                    if trade.order.symbol == symbol and trade.time_ms >= since
                ]
            }
    return None


def _check(request: SignedRequest, now_ms: int) -> None:
    headers = request.headers
    if headers.get("x-bapi-api-key") != API_KEY:
        raise RefusedError(10003, "API key is invalid.")
    time_text, window = headers["x-bapi-timestamp"], headers["x-bapi-recv-window"]
    payload = request.body if request.method == "POST" else request.raw_query
    if headers.get("x-bapi-sign") != digest(time_text + API_KEY + window + payload):
        raise RefusedError(10004, "error sign! please check your signature generation algorithm.")
    if not -1000 < now_ms - int(time_text) <= int(window):
        raise RefusedError(10002, "invalid request, please check your server timestamp or "
                                  "recv_window param.")  # fmt: skip


def _create(parameters: Mapping[str, str], market: Market) -> Order:
    account, client_id, symbol = market.account, parameters["orderLinkId"], parameters["symbol"]
    if any(order.client_id == client_id for order in account.orders):
        raise RefusedError(110072, "OrderLinkedID is duplicate")
    side = 1 if parameters["side"] == "Buy" else -1
    stop, target = _price(parameters.get("stopLoss")), _price(parameters.get("takeProfit"))
    _check_protection(account.price(symbol), side, stop, target)
    try:
        return account.order(
            client_id,
            symbol,
            side,
            Decimal(parameters["qty"]),
            reduce_only=parameters.get("reduceOnly") == "true",
            time_ms=market.now_ms,
            stop=stop,
            target=target,
        )
    except AccountRefusalError as refusal:
        raise RefusedError(*_REFUSALS[str(refusal)]) from None


def _price(text: str | None) -> Decimal | None:
    return Decimal(text) if text else None


def _check_protection(
    price: Decimal, side: int, stop: Decimal | None, target: Decimal | None
) -> None:
    beyond = stop is not None and (stop - price) * side >= 0
    if beyond or (target is not None and (price - target) * side >= 0):
        raise RefusedError(*_REFUSALS["triggers"])


def _trading_stop(account: Account, parameters: Mapping[str, str]) -> Any:
    position = account.position(parameters["symbol"])
    if not position.quantity:
        raise RefusedError(10001, "can not set tp/sl/ts for zero position")
    stop, target = _price(parameters.get("stopLoss")), _price(parameters.get("takeProfit"))
    if (stop, target) == (position.stop, position.target):
        raise RefusedError(34040, "not modified")
    side = 1 if position.quantity > 0 else -1
    if account.refusals:
        raise RefusedError(*_REFUSALS[account.refusals.pop(0)])
    _check_protection(account.price(parameters["symbol"]), side, stop, target)
    position.stop, position.target = stop, target
    return {}


def _position(account: Account, symbol: str) -> dict[str, Any]:
    position = account.position(symbol)
    side = "Buy" if position.quantity > 0 else "Sell"
    return {
        "symbol": symbol,
        "positionIdx": 1 if account.hedge_mode else 0,
        "side": side if position.quantity else "",
        "size": str(abs(position.quantity)),
        "positionValue": str(abs(position.quantity) * account.price(symbol)),
        "avgPrice": str(position.entry_price) if position.quantity else "0",
        "stopLoss": "" if position.stop is None else str(position.stop),
        "takeProfit": "" if position.target is None else str(position.target),
    }


def _order(order: Order) -> dict[str, Any]:
    ended = "PartiallyFilledCanceled" if order.filled else "Cancelled"
    status = {"filled": "Filled", "ended": ended}.get(order.status)
    if status is None:
        status = "PartiallyFilled" if order.filled else "New"
    return {
        "symbol": order.symbol,
        "orderId": str(order.venue_id),
        "orderLinkId": order.client_id,
        "side": "Buy" if order.side > 0 else "Sell",
        "orderType": "Market",
        "orderStatus": status,
        "rejectReason": "EC_NoError",
        "avgPrice": str(order.price) if order.filled else "",
        "qty": str(order.quantity),
        "cumExecQty": str(order.filled),
        "reduceOnly": order.reduce_only,
        "stopOrderType": "" if order.client_id else "StopLoss",
    }
