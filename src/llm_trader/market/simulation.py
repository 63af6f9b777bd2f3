"""A simulated perpetual market for demonstrations and tests, never evidence.

1. Regimes (bull, bear, range, panic) follow an hourly Markov chain; they set drift and volatility.
2. Log volatility is the sum of a slow and a fast AR(1), times the hour of the day and the weekday.
3. Returns mix a market factor, which all symbols of one seed share, with the symbol's own noise,
   and rare jumps of mean zero. Eight steps make a candle.
4. Funding follows past momentum; open interest follows moves and falls in liquidations.

The mean of the next return depends on the regime alone. Every random stream has one purpose and
is drawn in time order, so a longer simulation begins with the shorter one.

`simulate_random_walk` is the same market without 1 to 3: one volatility, no regimes, seasons or
jumps, no mean but a planted one. What can be known of it is known.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np
import numpy.typing as npt

from llm_trader.arrays import Floats, Times
from llm_trader.errors import InvalidInputError
from llm_trader.market.candles import CandleSeries
from llm_trader.market.history import MarketHistory
from llm_trader.market.keys import checked_symbol
from llm_trader.market.resampling import resample
from llm_trader.market.samples import FundingSeries, OpenInterestSeries
from llm_trader.timeframe import (
    DAY_MS,
    H4,
    HOUR_MS,
    M3,
    MAX_TIME_MS,
    MIN_TIME_MS,
    Millis,
    Timeframe,
)

# Price steps within a candle; with few, highs and lows hardly leave open and close.
# The exchange that a simulated store names.
EXCHANGE: Final = "simulated"
_STEPS: Final = 8
_FUNDING_MS: Final = 8 * HOUR_MS  # most venues settle three times a day

# Bull, bear, range, panic: drift per day, volatility multiple, hourly probability of the next one.
_DRIFT: Final = np.array([0.004, -0.004, 0.0, -0.015])
_VOLATILITY: Final = np.array([1.0, 1.15, 0.7, 2.6])
_MOVES: Final = np.array(
    [
        [0.989, 0.003, 0.007, 0.001],
        [0.004, 0.987, 0.007, 0.002],
        [0.006, 0.006, 0.987, 0.001],
        [0.030, 0.050, 0.050, 0.870],
    ]
)

_JUMPS_PER_DAY: Final = 0.4
_JUMP_SIZE: Final = 0.007
_MARKET_SHARE: Final = 0.8  # two symbols' returns then correlate at about 0.8


@dataclass(frozen=True, slots=True)
class _Listing:
    """What sets symbols apart: price, daily volatility, daily volume and open interest in USD."""

    price: float
    volatility: float
    volume_usd: float
    open_interest_usd: float


@dataclass(frozen=True, slots=True, eq=False)
class _Market:
    """What is simulated, and when its candles open."""

    symbol: str
    seed: int
    timeframe: Timeframe
    listing: _Listing
    times: Times

    def stream(self, purpose: str) -> np.random.Generator:
        """Random numbers of this symbol alone; `_stream` has those of all symbols of a seed."""
        return _stream(self.seed, self.symbol, purpose)


_LISTINGS: Final = {
    "BTCUSDT": _Listing(60_000.0, 0.022, 12e9, 4e9),
    "ETHUSDT": _Listing(3_000.0, 0.028, 8e9, 2e9),
    "SOLUSDT": _Listing(150.0, 0.036, 2.5e9, 0.8e9),
}


def simulate(
    symbol: str, *, start_ms: Millis, days: int, seed: int, timeframe: Timeframe = M3
) -> MarketHistory:
    """`days` days from `start_ms`, rounded down to the 4h grid: candles of `timeframe` and 4h,
    funding every 8h, open interest every 1h. Equal arguments give equal bytes.

    Raises `InvalidInputError` for a malformed symbol, a timeframe that does not divide 1h, or
    days, seed or start out of range.
    """
    market = _market(symbol, start_ms, days, seed, timeframe)
    regime = _regimes(seed, days * 24)[(market.times - market.times[0]) // HOUR_MS]
    activity = _activity(market) * _VOLATILITY[regime]
    return _history(market, _moves(market, regime, activity), activity)


def simulate_random_walk(
    symbol: str,
    *,
    start_ms: Millis,
    days: int,
    seed: int,
    timeframe: Timeframe = M3,
    reversal: float = 0.0,
) -> MarketHistory:
    """A martingale whose next move nothing tells; arguments, errors and series as `simulate`'s.

    With `reversal` the last 4 hours do tell something: each candle's mean log return is
    -reversal * tanh(z) times its volatility, z being their return in units of their volatility.
    """
    market = _market(symbol, start_ms, days, seed, timeframe)
    return _history(market, _walk(market, reversal), np.ones(len(market.times)))


def _market(symbol: str, start_ms: Millis, days: int, seed: int, timeframe: Timeframe) -> _Market:
    checked_symbol(symbol)
    if days < 1 or seed < 0 or HOUR_MS % timeframe.ms:
        raise InvalidInputError("simulate at least 1 day, seed from 0, timeframe a part of 1h")
    start_ms = H4.floor(start_ms)
    if start_ms < MIN_TIME_MS or start_ms + days * DAY_MS > MAX_TIME_MS:
        raise InvalidInputError("simulate between the years 2001 and 2286")
    times = np.arange(start_ms, start_ms + days * DAY_MS, timeframe.ms, dtype=np.int64)
    listing = _LISTINGS.get(symbol) or _derived_listing(symbol)
    return _Market(symbol, seed, timeframe, listing, times)


def _history(market: _Market, moves: Floats, activity: Floats) -> MarketHistory:
    """All that follows from the log returns of the steps, shape (candles, steps)."""
    candles = _candles(market, moves, activity)
    candles_per_hour = HOUR_MS // market.timeframe.ms
    hourly = candles.close[candles_per_hour - 1 :: candles_per_hour]
    return MarketHistory(
        market.symbol,
        candles,
        resample(candles, H4),
        _funding(market, hourly),
        _open_interest(market, hourly),
        HOUR_MS,
    )


def _stream(seed: int, *purpose: str) -> np.random.Generator:
    digest = hashlib.blake2b("/".join(purpose).encode(), digest_size=8).digest()
    return np.random.Generator(np.random.PCG64([seed, int.from_bytes(digest, "big")]))


def _derived_listing(symbol: str) -> _Listing:
    """An altcoin's, always the same for the same name: 0.01 to 100 USD."""
    digest = hashlib.blake2b(symbol.encode("ascii"), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64
    price = 10 ** (4 * share - 2)
    return _Listing(price, 0.035 + 0.02 * share, 2e8 * (1 + share), 1e8 * (1 + share))


def _regimes(seed: int, hours: int) -> npt.NDArray[np.intp]:
    bounds = _MOVES.cumsum(axis=1).tolist()
    draws = _stream(seed, "regime").random(hours).tolist()

    def move(regime: int, draw: float) -> int:
        return next((to for to, bound in enumerate(bounds[regime]) if draw < bound), regime)

    return np.array(list(accumulate(draws, move, initial=2))[1:], dtype=np.intp)  # begins in range


def _autoregressive(stream: np.random.Generator, count: int, keep: float) -> Floats:
    """An AR(1) of unit variance that begins at its mean."""
    shocks = (stream.standard_normal(count) * math.sqrt(1 - keep**2)).tolist()
    return np.array(list(accumulate(shocks, lambda level, shock: keep * level + shock)))


def _activity(market: _Market) -> Floats:
    """Volatility as a multiple of its usual level: clusters, hour of the day, weekend."""
    times = market.times
    hours = int((times[-1] - times[0]) // HOUR_MS) + 2
    slow = _autoregressive(_stream(market.seed, "slow"), hours, 0.99)
    fast = _autoregressive(_stream(market.seed, "fast"), hours, 0.75)
    symbol = _autoregressive(market.stream("own volatility"), hours, 0.95)
    hours_since_start = (times - times[0]) / HOUR_MS
    log_levels = 0.28 * slow + 0.22 * fast + 0.12 * symbol
    log_level = np.interp(hours_since_start, np.arange(hours), log_levels)
    hour = times % DAY_MS / HOUR_MS
    # The busiest hour is 14:30 UTC, when the stock exchanges of New York open.
    season = 1 + 0.3 * np.cos((hour - 14.5) * (2 * math.pi / 24))
    weekend = (times // DAY_MS + 3) % 7 >= 5  # 1 January 1970 was a Thursday
    # A lognormal of this spread has a mean of about exp(0.07): the level stays near 1.
    level: Floats = np.exp(log_level - 0.08) * season * np.where(weekend, 0.7, 1.0)
    return level


def _moves(market: _Market, regime: npt.NDArray[np.intp], activity: Floats) -> Floats:
    """Log returns of the steps, shape (candles, steps)."""
    shape = (len(regime), _STEPS)
    shared = _stream(market.seed, "market").standard_normal(shape)
    specific = market.stream("own").standard_normal(shape)
    mixed = _MARKET_SHARE**0.5 * shared + (1 - _MARKET_SHARE) ** 0.5 * specific
    listing, days_per_step = market.listing, market.timeframe.ms / DAY_MS / _STEPS
    sigma = (listing.volatility * activity * math.sqrt(days_per_step))[:, None]
    drift = (_DRIFT[regime] * days_per_step)[:, None]
    moves: Floats = drift - sigma**2 / 2 + sigma * mixed
    jump_chance = _JUMPS_PER_DAY * market.timeframe.ms / DAY_MS * _VOLATILITY[regime] ** 2
    jumps = _stream(market.seed, "jump").random(len(regime)) < jump_chance
    sizes = _JUMP_SIZE * _stream(market.seed, "jump size").standard_normal(len(regime))
    moves[:, 0] += np.where(jumps, sizes * listing.volatility / 0.025, 0.0)
    return moves


def _walk(market: _Market, reversal: float) -> Floats:
    """Log returns of the steps, shape (candles, steps), of one volatility; the price's mean stays
    where it is but for the reversal.
    """
    variance = market.listing.volatility**2 * market.timeframe.ms / DAY_MS
    normal = market.stream("walk").standard_normal((len(market.times), _STEPS))
    moves: Floats = normal * math.sqrt(variance / _STEPS) - variance / _STEPS / 2
    if reversal:
        memory = H4.ms // market.timeframe.ms
        pull, unit = reversal * math.sqrt(variance), math.sqrt(variance * memory)
        level, drift = [0.0] * (memory + 1), []  # nothing is known of what was before the first
        for move in moves.sum(axis=1).tolist():
            drift.append(-pull * math.tanh((level[-1] - level[-1 - memory]) / unit))
            level.append(level[-1] + move + drift[-1])
        moves += np.array(drift)[:, None] / _STEPS
    return moves


def _candles(market: _Market, moves: Floats, activity: Floats) -> CandleSeries:
    listing, days_per_candle = market.listing, market.timeframe.ms / DAY_MS
    decimals = max(0, 5 - math.floor(math.log10(listing.price)))
    tick = 10.0**-decimals
    path = listing.price * np.exp(np.cumsum(moves.ravel()))
    prices = np.maximum(np.round(path, decimals), tick).reshape(moves.shape)
    close = prices[:, -1]
    open_ = np.concatenate(([round(listing.price, decimals)], close[:-1]))
    surprise = np.abs(moves.sum(axis=1)) / (listing.volatility * math.sqrt(days_per_candle))
    noise = np.exp(0.35 * market.stream("volume").standard_normal(len(market.times)))
    mean_volume = listing.volume_usd / listing.price * market.timeframe.ms / DAY_MS
    columns = {
        "open_time_ms": market.times,
        "open": open_,
        "high": np.maximum(prices.max(axis=1), open_),
        "low": np.minimum(prices.min(axis=1), open_),
        "close": close,
        "volume": np.round(mean_volume * noise * (0.4 * activity + 0.6 * surprise), 3),
    }
    return CandleSeries.validated(market.timeframe, columns, "simulated candles")


def _funding(market: _Market, hourly: Floats) -> FundingSeries:
    """Each rate from the last 24 hourly closes before its settlement, as venues clamp it."""
    start_ms = int(market.times[0])
    end_ms = start_ms + len(hourly) * HOUR_MS
    first_ms = start_ms + -start_ms % _FUNDING_MS
    times = np.arange(first_ms, end_ms, _FUNDING_MS, dtype=np.int64)
    last = np.maximum((times - start_ms) // HOUR_MS - 1, 0)
    momentum = np.log(hourly[last] / hourly[np.maximum(last - 24, 0)])
    noise = _autoregressive(market.stream("funding"), len(times), 0.7)
    premium = 0.003 * momentum + 0.00008 * noise
    rate = premium + np.clip(0.0001 - premium, -0.00008, 0.00008)
    return FundingSeries.validated(
        {
            "time_ms": times,
            "rate": np.round(np.clip(rate, -0.003, 0.003), 8),
            "interval_hours": np.full(len(times), 8.0),
        },
        "simulated funding",
    )


def _open_interest(market: _Market, hourly: Floats) -> OpenInterestSeries:
    """The sample at an hour knows the closes before it: positions follow moves, until flushed."""
    closes = np.concatenate(([hourly[0]], hourly[:-1]))
    moves = np.diff(np.log(closes), prepend=math.log(closes[0]))
    flushed = np.maximum(np.abs(moves) - 0.5 * market.listing.volatility, 0.0)
    shocks = 0.004 * market.stream("open interest").standard_normal(len(hourly))
    changes = (0.25 * moves - 1.2 * flushed + shocks).tolist()
    levels = accumulate(changes, lambda level, change: 0.997 * level + change, initial=0.0)
    mean_interest = market.listing.open_interest_usd / market.listing.price
    interest = np.round(mean_interest * np.exp(np.array(list(levels)[1:])), 3)
    return OpenInterestSeries.validated(
        {
            "time_ms": market.times[0] + HOUR_MS * np.arange(len(hourly), dtype=np.int64),
            "open_interest": interest,
            "open_interest_value": np.round(interest * closes, 2),
        },
        "simulated open interest",
    )
