"""A made-up perpetual market that looks like one: for demonstrations and tests, never evidence.

1. Regimes (bull, bear, range, panic) follow an hourly Markov chain; they set drift and volatility.
2. Log volatility is the sum of a slow and a fast AR(1), times the hour of the day and the weekday.
3. Returns mix a market factor, which all symbols of one seed share, with the symbol's own noise,
   and rare jumps of mean zero. Eight steps make a candle.
4. Funding follows past momentum; open interest follows moves and falls in liquidations.

The mean of the next return depends on the regime alone. Every random stream has one purpose and
is drawn in time order, so a longer simulation begins with the shorter one.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np
import numpy.typing as npt

from llm_trader.errors import InvalidInputError
from llm_trader.market.candles import CandleSeries, Floats, Times
from llm_trader.market.history import MarketHistory
from llm_trader.market.keys import checked_symbol
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

_STEPS: Final = 8  # price steps within a candle
_FUNDING_MS: Final = 8 * HOUR_MS

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


_KNOWN: Final = {
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
    checked_symbol(symbol)
    if days < 1 or seed < 0 or HOUR_MS % timeframe.ms:
        raise InvalidInputError("simulate at least 1 day, seed from 0, timeframe a part of 1h")
    start_ms = H4.floor(start_ms)
    if start_ms < MIN_TIME_MS or start_ms + days * DAY_MS > MAX_TIME_MS:
        raise InvalidInputError("simulate between the years 2001 and 2286")
    listing = _KNOWN.get(symbol) or _derived_listing(symbol)
    times = np.arange(start_ms, start_ms + days * DAY_MS, timeframe.ms, dtype=np.int64)
    regime = _regimes(seed, days * 24)[(times - start_ms) // HOUR_MS]
    activity = _activity(seed, symbol, times) * _VOLATILITY[regime]
    moves = _moves(seed, symbol, listing, timeframe, regime, activity)
    candles = _candles(seed, symbol, listing, timeframe, times, moves, activity)
    hourly = candles.close[HOUR_MS // timeframe.ms - 1 :: HOUR_MS // timeframe.ms]
    return MarketHistory(
        symbol,
        candles,
        candles.resample(H4),
        _funding(seed, symbol, start_ms, hourly),
        _open_interest(seed, symbol, listing, start_ms, hourly),
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
    return np.array(list(accumulate(shocks, lambda before, shock: keep * before + shock)))


def _activity(seed: int, symbol: str, times: Times) -> Floats:
    """Volatility as a multiple of its usual level: clusters, hour of the day, weekend."""
    hours = int((times[-1] - times[0]) // HOUR_MS) + 2
    slow = _autoregressive(_stream(seed, "slow"), hours, 0.99)
    fast = _autoregressive(_stream(seed, "fast"), hours, 0.75)
    own = _autoregressive(_stream(seed, symbol, "own volatility"), hours, 0.95)
    at = (times - times[0]) / HOUR_MS
    log_level = np.interp(at, np.arange(hours), 0.28 * slow + 0.22 * fast + 0.12 * own)
    hour = times % DAY_MS / HOUR_MS
    season = 1 + 0.3 * np.cos((hour - 14.5) * (2 * math.pi / 24))
    weekend = (times // DAY_MS + 3) % 7 >= 5  # 1 January 1970 was a Thursday
    level: Floats = np.exp(log_level - 0.08) * season * np.where(weekend, 0.7, 1.0)
    return level


def _moves(
    seed: int,
    symbol: str,
    listing: _Listing,
    timeframe: Timeframe,
    regime: npt.NDArray[np.intp],
    activity: Floats,
) -> Floats:
    """Log returns of the steps, shape (candles, steps)."""
    shape = (len(regime), _STEPS)
    market = _stream(seed, "market").standard_normal(shape)
    own = _stream(seed, symbol, "own").standard_normal(shape)
    mixed = _MARKET_SHARE**0.5 * market + (1 - _MARKET_SHARE) ** 0.5 * own
    days_per_step = timeframe.ms / DAY_MS / _STEPS
    sigma = (listing.volatility * activity * math.sqrt(days_per_step))[:, None]
    drift = (_DRIFT[regime] * days_per_step)[:, None]
    moves: Floats = drift - sigma**2 / 2 + sigma * mixed
    jump_chance = _JUMPS_PER_DAY * timeframe.ms / DAY_MS * _VOLATILITY[regime] ** 2
    jumps = _stream(seed, "jump").random(len(regime)) < jump_chance
    sizes = _JUMP_SIZE * _stream(seed, "jump size").standard_normal(len(regime))
    moves[:, 0] += np.where(jumps, sizes * listing.volatility / 0.025, 0.0)
    return moves


def _candles(
    seed: int,
    symbol: str,
    listing: _Listing,
    timeframe: Timeframe,
    times: Times,
    moves: Floats,
    activity: Floats,
) -> CandleSeries:
    decimals = max(0, 5 - math.floor(math.log10(listing.price)))
    tick = 10.0**-decimals
    path = listing.price * np.exp(np.cumsum(moves.ravel()))
    prices = np.maximum(np.round(path, decimals), tick).reshape(moves.shape)
    close = prices[:, -1]
    open_ = np.concatenate(([round(listing.price, decimals)], close[:-1]))
    surprise = np.abs(moves.sum(axis=1)) / (listing.volatility * math.sqrt(timeframe.ms / DAY_MS))
    noise = np.exp(0.35 * _stream(seed, symbol, "volume").standard_normal(len(times)))
    usual = listing.volume_usd / listing.price * timeframe.ms / DAY_MS
    columns = {
        "open_time_ms": times,
        "open": open_,
        "high": np.maximum(prices.max(axis=1), open_),
        "low": np.minimum(prices.min(axis=1), open_),
        "close": close,
        "volume": np.round(usual * noise * (0.4 * activity + 0.6 * surprise), 3),
    }
    return CandleSeries.validated(timeframe, columns, "simulated candles")


def _funding(seed: int, symbol: str, start_ms: Millis, hourly: Floats) -> FundingSeries:
    """Each rate from the last 24 hourly closes before its settlement, as venues clamp it."""
    end_ms = start_ms + len(hourly) * HOUR_MS
    first_ms = start_ms + -start_ms % _FUNDING_MS
    times = np.arange(first_ms, end_ms, _FUNDING_MS, dtype=np.int64)
    last = np.maximum((times - start_ms) // HOUR_MS - 1, 0)
    momentum = np.log(hourly[last] / hourly[np.maximum(last - 24, 0)])
    noise = _autoregressive(_stream(seed, symbol, "funding"), len(times), 0.7)
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


def _open_interest(
    seed: int, symbol: str, listing: _Listing, start_ms: Millis, hourly: Floats
) -> OpenInterestSeries:
    """The sample at an hour knows the closes before it: positions follow moves, until flushed."""
    before = np.concatenate(([hourly[0]], hourly[:-1]))
    moves = np.diff(np.log(before), prepend=math.log(before[0]))
    flushed = np.maximum(np.abs(moves) - 0.5 * listing.volatility, 0.0)
    shocks = 0.004 * _stream(seed, symbol, "open interest").standard_normal(len(hourly))
    changes = (0.25 * moves - 1.2 * flushed + shocks).tolist()
    levels = accumulate(changes, lambda level, change: 0.997 * level + change, initial=0.0)
    usual = listing.open_interest_usd / listing.price
    interest = np.round(usual * np.exp(np.array(list(levels)[1:])), 3)
    return OpenInterestSeries.validated(
        {
            "time_ms": start_ms + HOUR_MS * np.arange(len(hourly), dtype=np.int64),
            "open_interest": interest,
            "open_interest_value": np.round(interest * before, 2),
        },
        "simulated open interest",
    )
