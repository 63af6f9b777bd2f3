"""The workflow's paper account for who looks at it: orders, fills, and equity against holding.

equity(t)  = wallet(t) + sum over symbols of quantity(t) · price(t) + cost(t)
holding(t) = what the deposits were worth now had they bought the traded symbols, in equal
             parts, at the first fill (or later, when they were paid in), without costs
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Protocol

import msgspec
import numpy as np
from msgspec import Meta

from llm_trader.arrays import Floats, Times
from llm_trader.market.store import MarketStore
from llm_trader.rpc.params import Timeout
from llm_trader.serving.wire import Symbol
from llm_trader.timeframe import DAY_MS, HOUR_MS, MINUTE_MS, Millis, Timeframe

# As many as a chart of the page has pixels for.
_POINTS: Final = 300
_STEPS_MS: Final = (15 * MINUTE_MS, HOUR_MS, 4 * HOUR_MS, DAY_MS, 7 * DAY_MS)


class PaperAccountParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    symbol: Symbol | None = None
    limit: Annotated[
        int, Meta(ge=1, le=200, description="Most orders, and most fills, of the answer.")
    ] = 50
    timeout_ms: Timeout | None = None


class AccountPosition(msgspec.Struct, frozen=True, kw_only=True):
    symbol: Annotated[str, Meta(description="The symbol.")]
    quantity: Annotated[float, Meta(description="Above 0 for long, below for short.")]
    entry_price: Annotated[float, Meta(description="Mean price at which it was opened.")]
    price: Annotated[
        float | None, Meta(description="Latest price that the account has seen; null for none.")
    ]
    unrealized: Annotated[
        float | None, Meta(description="Its profit at this price, before costs; null for none.")
    ]
    opened_at: Annotated[Millis, Meta(description="When it was opened, UTC milliseconds.")]
    stop_price: Annotated[float | None, Meta(description="Its stop; null for none.")]
    target_price: Annotated[float | None, Meta(description="Its target; null for none.")]
    close_at: Annotated[
        Millis | None, Meta(description="When it is closed at the latest, UTC milliseconds.")
    ]


class AccountOrder(msgspec.Struct, frozen=True, kw_only=True):
    id: Annotated[str, Meta(description="Id that the workflow gave it.")]
    created_at: Annotated[Millis, Meta(description="Time of its decision, UTC milliseconds.")]
    symbol: Annotated[str, Meta(description="The symbol.")]
    side: Annotated[str, Meta(description="`BUY` or `SELL`.")]
    kind: Annotated[str, Meta(description="`open`, or `close`: it only reduces a position.")]
    quantity: Annotated[float, Meta(description="What was ordered.")]
    state: Annotated[str, Meta(description="`waiting` for a price, `filled` or `rejected`.")]
    average_price: Annotated[float | None, Meta(description="Price of its fill; null for none.")]
    reason: Annotated[str | None, Meta(description="Why it was rejected; null otherwise.")]


class AccountFill(msgspec.Struct, frozen=True, kw_only=True):
    order_id: Annotated[
        str, Meta(description="Its order; of a stop or target, the order that set it.")
    ]
    time: Annotated[Millis, Meta(description="When it happened, UTC milliseconds.")]
    symbol: Annotated[str, Meta(description="The symbol.")]
    side: Annotated[str, Meta(description="`BUY` or `SELL`.")]
    quantity: Annotated[float, Meta(description="How much.")]
    price: Annotated[float, Meta(description="The market's price.")]
    reason: Annotated[str, Meta(description="`order`, `stop`, `target`, `time`, `liquidation`.")]
    realized: Annotated[
        float | None, Meta(description="Profit of what it closed, before costs; null if unknown.")
    ]
    costs: Annotated[float, Meta(description="Its fee and slippage.")]


class EquityCurve(msgspec.Struct, frozen=True, kw_only=True):
    """Columns in the order of time. Null where a price is not known."""

    symbols: Annotated[list[str], Meta(description="What holding holds, in equal parts.")]
    time: Annotated[list[Millis], Meta(description="UTC milliseconds.")]
    equity: Annotated[list[float | None], Meta(description="Of the account.")]
    holding: Annotated[
        list[float | None], Meta(description="Of the deposits, had they bought the symbols.")
    ]


class PaperAccountResult(msgspec.Struct, frozen=True, kw_only=True):
    """`recorded` is false where no workflow has ever traded on paper here."""

    recorded: Annotated[bool, Meta(description="Whether there is a paper account.")]
    ledger: Annotated[str, Meta(description="File of its books (workflow.paper.ledger).")]
    currency: Annotated[str, Meta(description="Currency of all amounts.")] = ""
    deposited: Annotated[float, Meta(description="What was paid in.")] = 0.0
    wallet: Annotated[float, Meta(description="Cash, without open positions.")] = 0.0
    fees: Annotated[float, Meta(description="Fees since the beginning.")] = 0.0
    slippage: Annotated[float, Meta(description="Slippage since the beginning.")] = 0.0
    funding: Annotated[float, Meta(description="Funding paid since; below 0: received.")] = 0.0
    total_orders: Annotated[int, Meta(description="Number of orders on record.")] = 0
    positions: Annotated[list[AccountPosition], Meta(description="Open positions.")] = (
        msgspec.field(default_factory=list)
    )
    orders: Annotated[list[AccountOrder], Meta(description="The newest ones, newest first.")] = (
        msgspec.field(default_factory=list)
    )
    fills: Annotated[list[AccountFill], Meta(description="The newest ones, newest first.")] = (
        msgspec.field(default_factory=list)
    )
    curve: Annotated[EquityCurve | None, Meta(description="Equity over time; null for none.")] = (
        None
    )


@dataclass(frozen=True, slots=True, eq=False)
class Balance:
    """An account of the books over time: from `times_ms[i]` on it has `amounts[i]`."""

    times_ms: Times
    amounts: Floats

    def at(self, times_ms: Times) -> Floats:
        index = np.searchsorted(self.times_ms, times_ms, "right") - 1
        return np.where(index < 0, 0.0, self.amounts[np.maximum(index, 0)])


class AccountBooks(Protocol):
    """Reads the books; `balances` have the names of the ledger, such as `wallet` and `cost:S`."""

    def read(
        self, params: PaperAccountParams
    ) -> tuple[PaperAccountResult, Mapping[str, Balance]]: ...


def traded_symbols(balances: Mapping[str, Balance]) -> list[str]:
    return sorted(name.removeprefix("cost:") for name in balances if name.startswith("cost:"))


def times_of_curve(balances: Mapping[str, Balance], end_ms: Millis) -> Times | None:
    """From the first deposit to `end_ms`, at most some 300; None without a deposit."""
    deposits = balances.get("deposits")
    return None if deposits is None else _grid(int(deposits.times_ms[0]), end_ms)


def equity_curve(
    balances: Mapping[str, Balance], times_ms: Times, prices: Mapping[str, Floats]
) -> EquityCurve:
    """`prices` are those of each traded symbol at the times; NaN for none."""
    equity, first_ms = balances["wallet"].at(times_ms), int(times_ms[-1])
    for symbol, price in prices.items():
        cost, held = balances[f"cost:{symbol}"], balances[f"position:{symbol}"].at(times_ms)
        equity = equity + np.where(held == 0, 0.0, held * price) + cost.at(times_ms)
        first_ms = min(first_ms, int(cost.times_ms[0]))
    return EquityCurve(
        symbols=[*prices],
        time=times_ms.tolist(),
        equity=_nullable(equity),
        holding=_nullable(_holding(times_ms, [*prices.values()], balances["deposits"], first_ms)),
    )


def _grid(start_ms: Millis, end_ms: Millis) -> Times:
    step = next((s for s in _STEPS_MS if (end_ms - start_ms) / s <= _POINTS), _STEPS_MS[-1])
    first = -(-start_ms // step) * step
    inner = np.arange(first, max(end_ms, start_ms) + 1, step, dtype=np.int64)
    return np.unique(np.concatenate([[start_ms], inner, [max(end_ms, start_ms)]]).astype(np.int64))


def prices_at(store: MarketStore, symbol: str, times_ms: Times) -> Floats:
    """Closes of candles that ended at most their length before; NaN for none.

    Within, of candles that are as long as the steps allow: they are read at once. The first time
    and the last are no multiples of a step, so the finest candles come closest.
    """
    prices = np.full(len(times_ms), np.nan)
    timeframes = sorted(store.timeframes(symbol), key=lambda timeframe: timeframe.ms)
    if not timeframes:
        return prices
    finest, step_ms = timeframes[0], int(np.median(np.diff(times_ms))) if len(times_ms) > 1 else 0
    coarse = [timeframe for timeframe in timeframes if timeframe.ms <= step_ms] or [finest]
    prices[1:-1] = _closes(store, symbol, coarse[-1], times_ms[1:-1])
    for end in (0, -1):
        prices[[end]] = _closes(store, symbol, finest, times_ms[[end]])
    return prices


def _closes(store: MarketStore, symbol: str, timeframe: Timeframe, times_ms: Times) -> Floats:
    if not len(times_ms):
        return np.empty(0)
    start_ms, end_ms = int(times_ms[0]) - 2 * timeframe.ms, int(times_ms[-1]) - timeframe.ms + 1
    candles = store.candles(symbol, timeframe, start_ms, end_ms)
    if not len(candles):
        return np.full(len(times_ms), np.nan)
    ends_ms = candles.open_time_ms + timeframe.ms
    index = np.searchsorted(ends_ms, times_ms, "right") - 1
    is_recent = (index >= 0) & (times_ms - ends_ms[index] < timeframe.ms)
    return np.where(is_recent, candles.close[index], np.nan)


def _holding(times_ms: Times, prices: list[Floats], deposits: Balance, first_ms: Millis) -> Floats:
    """Each deposit buys at the first time of the grid at or after it and the first fill."""
    paid_in = np.diff(-deposits.amounts, prepend=0.0)
    value = np.zeros(len(times_ms))
    for time_ms, amount in zip(deposits.times_ms, paid_in, strict=True):
        bought = int(np.searchsorted(times_ms, max(int(time_ms), first_ms)))
        bought = min(bought, len(times_ms) - 1)
        growth = [p / p[bought] for p in prices] or [np.ones(len(times_ms))]
        grown = np.where(np.arange(len(times_ms)) < bought, 1.0, np.mean(growth, axis=0))
        value += np.where(times_ms >= time_ms, amount * grown, 0.0)
    return value


def _nullable(values: Floats) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
