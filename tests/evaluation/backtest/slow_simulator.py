"""A second simulator to compare with: an account of cash and coins, walked slot by slot.

It shares no code and no formula with `evaluation.backtest.simulator`: there are no percentages of
entry notionals, only money that is paid and coins that are worth something.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from llm_trader.arrays import Times
from llm_trader.evaluation.backtest.simulator import Sides
from llm_trader.market.candles import CandleSeries
from llm_trader.market.samples import FundingSeries
from llm_trader.timeframe import Millis
from llm_trader.trading.rules import Costs, TradingRules

Candle = tuple[float, float, float, float]


@dataclass
class Account:
    fee: float
    rules: TradingRules
    cash: float = 1.0
    coins: float = 0.0
    entry_price: float = 0.0
    entry_ms: Millis = 0
    last_price: float = 0.0
    equity_at: dict[Millis, float] = field(default_factory=dict)
    exits: list[tuple[Millis, float, str]] = field(default_factory=list)

    def worth(self) -> float:
        return max(0.0, self.cash + self.coins * self.last_price)

    def settle(self, rate: float) -> None:
        self.cash -= self.coins * self.last_price * rate

    def buy_in(self, side: int, price: float, now: Millis) -> None:
        self.coins = side * self.cash / price
        self.cash -= self.coins * price + abs(self.coins) * price * self.fee
        self.entry_price, self.entry_ms = price, now

    def leave(self, price: float, now: Millis, why: str) -> None:
        self.cash = max(0.0, self.cash + self.coins * price - abs(self.coins) * price * self.fee)
        self.coins = 0.0
        self.exits.append((now, price, why))

    def barriers(self) -> tuple[float, float]:
        up = self.coins > 0
        stop = 100.0 if self.rules.stop_pct is None else self.rules.stop_pct
        target = 1e9 if self.rules.target_pct is None else self.rules.target_pct
        if up:
            return self.entry_price * (1 - stop / 100), self.entry_price * (1 + target / 100)
        return self.entry_price * (1 + stop / 100), self.entry_price * (1 - target / 100)

    def open_of_candle(self, price: float, now: Millis, wish: int) -> None:
        may_enter = True
        if self.coins:
            stop, target = self.barriers()
            up = self.coins > 0
            held_ms = now - self.entry_ms
            limit = self.rules.longest_hold_ms
            if price <= stop if up else price >= stop:
                self.leave(price, now, "stop")
            elif price >= target if up else price <= target:
                self.leave(target, now, "target")
            elif limit is not None and held_ms >= limit:
                self.leave(price, now, "time")
            elif wish and (wish > 0) != up and self.rules.opposite != "ignore":
                self.leave(price, now, "signal")
                may_enter = self.rules.opposite == "reverse"
        if not self.coins and wish and may_enter and self.cash > 0:
            self.buy_in(wish, price, now)

    def rest_of_candle(self, high: float, low: float, last_ms: Millis) -> None:
        if not self.coins:
            return
        stop, target = self.barriers()
        if low <= stop <= high or (self.coins > 0 and low <= stop):
            self.leave(stop, last_ms, "stop")
        elif low <= target <= high:
            self.leave(target, last_ms, "target")


def slow_simulation(
    candles: CandleSeries,
    funding: FundingSeries,
    time_ms: Times,
    sides: Sides,
    costs: Costs,
    rules: TradingRules,
) -> Account:
    """The account after the last candle; `equity_at` has every decision time within the data."""
    step = candles.timeframe.ms
    rows: dict[Millis, Candle] = {
        int(candles.open_time_ms[i]): (
            float(candles.open[i]),
            float(candles.high[i]),
            float(candles.low[i]),
            float(candles.close[i]),
        )
        for i in range(len(candles))
    }
    wishes = dict(zip(time_ms.tolist(), sides.tolist(), strict=True))
    rates: dict[Millis, float] = {}
    for stamp, rate in zip(funding.time_ms.tolist(), funding.rate.tolist(), strict=True):
        rates[stamp // 60_000 * 60_000] = rate
    account = Account((costs.taker_fee_bps + costs.slippage_bps) / 1e4, rules)
    start, end = min(rows), max(rows) + step
    for now in range(start, end + 1, step):
        candle = rows.get(now)
        if candle:
            account.last_price = candle[0]
        if account.coins and now in rates:
            account.settle(rates[now])
        if now in wishes:
            account.equity_at[now] = account.worth()
        if candle:
            account.open_of_candle(candle[0], now, wishes.get(now, 0))
            account.rest_of_candle(candle[1], candle[2], now + step - 1)
            account.last_price = candle[3]
    if account.coins:
        account.leave(account.last_price, end, "end")
    return account
