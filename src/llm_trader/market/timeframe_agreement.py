"""Whether candles of two timeframes are those of one market at one time.

Coarse candles that are built from fine ones must be the coarse ones that came from elsewhere; where
they are not, one of the two has wrong times or is of another market. Only whole coarse candles are
compared, and none that the store itself built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from llm_trader.arrays import Floats, Mask
from llm_trader.errors import StoreError
from llm_trader.market.built_candles import BuiltCandles
from llm_trader.market.candles import CandleSeries
from llm_trader.market.resampling import resample
from llm_trader.timeframe import Millis, Timeframe, iso8601

# Gives the candles with `start_ms <= open time < end_ms`.
Reader: TypeAlias = Callable[[Millis, Millis], CandleSeries]
Span: TypeAlias = tuple[Millis, Millis]
Tolerances: TypeAlias = Mapping[str, float]  # of each compared field, relative

# Of 20,922 pairs from Bybit and Binance (4h and 1h candles from 5m ones, BTC, ETH and SOL, 2023 and
# 2025/26) all prices were equal to the bit, while 99 % of closes moved by more than 0.01 % from one
# 4h candle to the next. Volume is not compared: some sources count contracts or quote currency.
SAME_MARKET: Final[Tolerances] = dict.fromkeys(("open", "high", "low", "close"), 1e-4)
# To go on with built candles where native ones end. Prices come from the same trades and may differ
# by the digits of a text file alone. One volume in 8,760 of Binance's differed, by 8 %.
SAME_CANDLES: Final[Tolerances] = {
    **dict.fromkeys(("open", "high", "low", "close"), 1e-6),
    "volume": 1e-3,
}
# A twentieth of a file that is shifted stands out; single errors of an exchange do not.
MOST_DIFFERING_SHARE: Final = 0.01

# At import so many stretches are compared, evenly spaced, the first and the last among them.
_STRETCHES: Final = 8
_CANDLES_PER_STRETCH: Final = 25
_DIFFERENCES_SHOWN: Final = 3
# A check reads both series whole, some 20 MB at once.
_FINE_ROWS_PER_READ: Final = 50_000


class Difference(NamedTuple):
    """The first field in which a coarse candle is not what its fine candles make."""

    time_ms: Millis
    field: str
    coarse: float
    from_fine: float

    def values(self, fine: Timeframe, coarse: Timeframe) -> str:
        return f"{self.field} {self.coarse:.10g} in {coarse}, {self.from_fine:.10g} from {fine}"


class Comparison(NamedTuple):
    """How many coarse candles were compared, how many differ, and the first and last of those."""

    compared: int = 0
    differing: int = 0
    first: tuple[Difference, ...] = ()
    last_ms: Millis = 0

    @property
    def disagrees(self) -> bool:
        return self.differing > MOST_DIFFERING_SHARE * self.compared

    def listed(self, fine: Timeframe, coarse: Timeframe) -> str:
        return "; ".join(f"{iso8601(d.time_ms)}, {d.values(fine, coarse)}" for d in self.first)


def divides(fine: Timeframe, coarse: Timeframe) -> bool:
    return fine < coarse and coarse.ms % fine.ms == 0


def compare(
    fine: Reader,
    coarse: Reader,
    stretches: Iterator[Span],
    tolerances: Tolerances,
) -> Comparison:
    """Compare each stretch; readers give candles of one timeframe each.

    Damaged stretches are left out: to find damage is what a deep check is for.
    """
    compared, differing, last_ms = 0, 0, 0
    first: list[Difference] = []
    for start_ms, end_ms in stretches:
        try:
            native, parts = coarse(start_ms, end_ms), fine(start_ms, end_ms)
        except StoreError:
            continue
        built = resample(parts, native.timeframe)
        _, a, b = np.intersect1d(
            native.open_time_ms, built.open_time_ms, assume_unique=True, return_indices=True
        )
        differ = {
            field: _differ(getattr(native, field)[a], getattr(built, field)[b], tolerance)
            for field, tolerance in tolerances.items()
        }
        rows = np.flatnonzero(np.logical_or.reduce(list(differ.values())))
        compared += len(a)
        differing += len(rows)
        last_ms = int(native.open_time_ms[a[rows[-1]]]) if len(rows) else last_ms
        for row in rows[: _DIFFERENCES_SHOWN - len(first)]:
            # The close says most: a high may be the same for days.
            field = next(f for f in ("close", *tolerances) if differ[f][row])
            values = (float(getattr(s, field)[i[row]]) for s, i in ((native, a), (built, b)))
            first.append(Difference(int(native.open_time_ms[a[row]]), field, *values))
    return Comparison(compared, differing, tuple(first), last_ms)


def _differ(a: Floats, b: Floats, tolerance: float) -> Mask:
    differ: Mask = np.abs(a - b) > tolerance * np.maximum(np.abs(a), np.abs(b))
    return differ


def overlap(fine: Span | None, coarse: Span | None, timeframe: Timeframe) -> Span:
    """The whole candles of the coarse `timeframe` within two spans; empty if start is not before.

    Spans are from the open of the first candle to the close of the last one.
    """
    if fine is None or coarse is None:
        return 0, 0
    start_ms = -(-max(fine[0], coarse[0]) // timeframe.ms) * timeframe.ms
    return start_ms, timeframe.floor(min(fine[1], coarse[1]))


def sampled_stretches(start_ms: Millis, end_ms: Millis, timeframe: Timeframe) -> Iterator[Span]:
    """A bounded part of a span of coarse candles, always the same one."""
    candles = (end_ms - start_ms) // timeframe.ms
    if candles <= _STRETCHES * _CANDLES_PER_STRETCH:
        if candles > 0:
            yield start_ms, end_ms
        return
    for first in np.linspace(0, candles - _CANDLES_PER_STRETCH, _STRETCHES).astype(int).tolist():
        stretch_ms = start_ms + first * timeframe.ms
        yield stretch_ms, stretch_ms + _CANDLES_PER_STRETCH * timeframe.ms


def all_stretches(
    start_ms: Millis, end_ms: Millis, fine: Timeframe, coarse: Timeframe
) -> Iterator[Span]:
    """The whole span in parts that fit into memory."""
    step_ms = max(1, _FINE_ROWS_PER_READ * fine.ms // coarse.ms) * coarse.ms
    for first_ms in range(start_ms, end_ms, step_ms):
        yield first_ms, min(first_ms + step_ms, end_ms)


def native_part(series: CandleSeries, built: BuiltCandles) -> CandleSeries:
    """The candles of a series that were not built from finer ones."""
    native = ~built.contain(series.open_time_ms)
    if native.all():
        return series
    return CandleSeries(
        series.timeframe, series.open_time_ms[native], *(v[native] for _, v in series.columns())
    )
