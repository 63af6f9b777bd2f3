"""Many snapshots of one symbol on arrays, and the fields that follow from other fields."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from llm_trader.arrays import Floats, Kinds, Mask, Rows, Times
from llm_trader.snapshot.model import (
    EXPECTED_VOLATILITY,
    OPTIONAL,
    REFUSALS,
    REQUIRED,
    SCALARS,
    SERIES,
    SERIES_LENGTH,
    USUAL_FUNDING_HOURS,
    MarketSnapshot,
)
from llm_trader.timeframe import HOUR_MS, Millis, Timeframe

ROW: Final = {name: row for row, name in enumerate(SCALARS)}
SERIES_ROW: Final = {name: row for row, name in enumerate(SERIES)}
_ALL: Final = slice(None)
# Rows, so that a table of all columns of an index will do as well.
_DECIDING: Final = [ROW[fields[-1]] for fields in OPTIONAL.values()]
_REQUIRED: Final = [ROW[name] for name in REQUIRED]
_USABLE: Final = [ROW[name] for name in REQUIRED if name not in EXPECTED_VOLATILITY.values()]

# The least-squares slope of 10 evenly spaced points is their sum with these weights.
_OFFSETS = np.arange(SERIES_LENGTH) - (SERIES_LENGTH - 1) / 2
_SLOPE_WEIGHTS: Final = _OFFSETS / (_OFFSETS**2).sum()
# Fewer points of a series with holes say too little about its slope.
_MIN_SLOPE_POINTS: Final = 7

# Slope, its series, whether that is intraday (then the slope is per hour), whether it is in % of
# the price.
_SLOPES: Final = (
    ("price_slope", "mid_prices", True, True),
    ("ema_20_slope", "ema_20_values", True, True),
    ("macd_slope", "macd_values", True, True),
    ("rsi_7_slope", "rsi_7_values", True, False),
    ("rsi_14_slope", "rsi_14_values", True, False),
    ("macd_4h_slope", "macd_4h_values", False, True),
    ("rsi_14_4h_slope", "rsi_14_4h_values", False, False),
)


@dataclass(frozen=True, slots=True, eq=False)
class SnapshotTable:
    """n snapshots in time order; NaN where a field is unknown.

    `scalars` has the shape (fields, n), rows as in `model.SCALARS`; `series` has the shape
    (series, n, 10), oldest point first, rows as in `model.SERIES`.
    """

    symbol: str
    intraday: Timeframe
    as_of_ms: Times
    scalars: Floats
    series: Floats

    @classmethod
    def unknown(cls, symbol: str, intraday: Timeframe, as_of_ms: Times) -> SnapshotTable:
        """A table without any known value."""
        n = len(as_of_ms)
        series = np.full((len(SERIES), n, SERIES_LENGTH), np.nan)
        return cls(symbol, intraday, as_of_ms, np.full((len(SCALARS), n), np.nan), series)

    @classmethod
    def of_fields(
        cls, symbol: str, intraday: Timeframe, as_of_ms: Millis, fields: Mapping[str, Any]
    ) -> SnapshotTable:
        """One snapshot of the given fields and the fields that follow from them.

        A series of fewer than 10 points is ignored, as its slope would mean something else. A
        funding rate without its interval counts as one of 8 hours.
        """
        table = cls.unknown(symbol, intraday, np.array([as_of_ms], dtype=np.int64))
        for name, value in fields.items():
            if name in ROW and value is not None:
                table.scalars[ROW[name], 0] = value
            elif name in SERIES_ROW and value is not None and len(value) >= SERIES_LENGTH:
                table.series[SERIES_ROW[name], 0] = value[-SERIES_LENGTH:]  # None becomes NaN
        hours = table.column("funding_interval_hours")
        if fields.get("funding_rate") is not None and np.isnan(hours[0]):
            hours[0] = USUAL_FUNDING_HOURS
        table.derive()
        return table

    @classmethod
    def of_snapshot(cls, snapshot: MarketSnapshot, intraday: Timeframe) -> SnapshotTable:
        """One snapshot as it is, with nothing derived: the inverse of `snapshot`."""
        as_of_ms = np.array([snapshot.timestamp], dtype=np.int64)
        table = cls.unknown(snapshot.symbol, intraday, as_of_ms)
        table.scalars[:, 0] = [_nan_for_none(getattr(snapshot, name)) for name in SCALARS]
        for name, row in SERIES_ROW.items():
            if (points := getattr(snapshot, name)) is not None:
                table.series[row, 0] = [_nan_for_none(value) for value in points]
        return table

    def __len__(self) -> int:
        return len(self.as_of_ms)

    def column(self, name: str) -> Floats:
        """A view of one scalar field, shape (n,)."""
        values: Floats = self.scalars[ROW[name]]
        return values

    def complete(self) -> Mask:
        """Whether each snapshot is complete, shape (n,); see `is_complete`."""
        return is_complete(self.scalars)

    def usable(self) -> Mask:
        """Whether each snapshot can be compared with others, shape (n,); see `is_usable`."""
        return is_usable(self.scalars)

    def storable(self) -> Mask:
        """Whether each snapshot has all that a point needs, shape (n,)."""
        return np.asarray(np.isfinite(self.scalars[_REQUIRED]).all(axis=0))

    def lacking(self) -> Kinds:
        """Which of `OPTIONAL` each snapshot lacks, shape (n,); see `lacking`."""
        return lacking(self.scalars)

    def refusals(self, names: Collection[str] = SCALARS) -> Counter[str]:
        """Counts of the reasons why snapshots lack a field of `names`; the first one decides."""
        rows = [ROW[name] for name in SCALARS if name in names]
        missing = ~np.isfinite(self.scalars[rows])
        first = missing.argmax(axis=0)[missing.any(axis=0)]
        return Counter(REFUSALS[SCALARS[rows[row]]] for row in first)

    def take(self, rows: Rows | Mask) -> SnapshotTable:
        """The rows of an index or a mask."""
        scalars, series = self.scalars[:, rows], self.series[:, rows]
        return replace(self, as_of_ms=self.as_of_ms[rows], scalars=scalars, series=series)

    def filled_from(self, scalars: Floats) -> SnapshotTable:
        """This table with its unknown scalar fields taken from `scalars` of the same shape."""
        return replace(self, scalars=np.where(np.isnan(self.scalars), scalars, self.scalars))

    def snapshot(self, row: int) -> MarketSnapshot:
        """One row as a record."""
        scalars, series = self.scalars[:, row], self.series[:, row]
        values = dict(zip(SCALARS, _none_for_nan(scalars), strict=True))
        for name, points in zip(SERIES, series, strict=True):
            values[name] = _none_for_nan(points) if np.isfinite(points).any() else None
        return MarketSnapshot(symbol=self.symbol, timestamp=int(self.as_of_ms[row]), **values)

    def derive(self) -> None:
        """Fill in unknown fields that follow from known ones."""
        latest, mean = self.column("open_interest_latest"), self.column("open_interest_avg_24h")
        with np.errstate(all="ignore"):
            self._fill("hour_of_day", (self.as_of_ms // 60_000 % 1440) / 60.0)
            self._fill("ema_ratio", self.column("ema_20_4h") / self.column("ema_50_4h"))
            self._fill("oi_delta_pct", (latest - mean) / mean * 100)
            if np.isfinite(self.series[:, :, -1]).any():
                self._derive_slopes()

    def _derive_slopes(self) -> None:
        pct_of_price = 100 / self.column("price")
        per_hour = HOUR_MS / self.intraday.ms
        # NumPy may sum in another order for another number of rows; this order is always the same.
        slopes = self.series[:, :, 0] * _SLOPE_WEIGHTS[0]
        for i in range(1, SERIES_LENGTH):
            slopes = slopes + self.series[:, :, i] * _SLOPE_WEIGHTS[i]
        _fit_around_holes(self.series, slopes)
        for slope, series, is_intraday, is_price in _SLOPES:
            values = slopes[SERIES_ROW[series]] * (per_hour if is_intraday else 1.0)
            self._fill(slope, values * pct_of_price if is_price else values)

    def _fill(self, name: str, values: Floats) -> None:
        column = self.column(name)
        fresh = np.isnan(column) & np.isfinite(values)
        column[fresh] = values[fresh]


def is_complete(scalars: Floats) -> Mask:
    """Whether states have all scalar fields but the expected volatilities, shape (n,)."""
    return np.asarray(np.isfinite(scalars[: -len(EXPECTED_VOLATILITY)]).all(axis=0))


def is_usable(scalars: Floats) -> Mask:
    """Whether states are complete but for what is `OPTIONAL`, shape (n,)."""
    return np.asarray(np.isfinite(scalars[_USABLE]).all(axis=0))


def lacking(scalars: Floats, columns: Rows | slice = _ALL) -> Kinds:
    """Which of `OPTIONAL` some states lack, a bit for each, shape (n,); 0 where nothing.

    `scalars` (fields, states) may have further rows.
    """
    kinds: Kinds = np.isnan(scalars[_DECIDING[0]][columns]).view(np.uint8)
    for bit, row in enumerate(_DECIDING[1:], start=1):
        kinds |= np.isnan(scalars[row][columns]).view(np.uint8) << np.uint8(bit)
    return kinds


def any_lacks(scalars: Floats) -> bool:
    """Whether any of `lacking` is not 0; cheaper than looking at each state."""
    return any(np.isnan(scalars[row]).any() for row in _DECIDING)


def _nan_for_none(value: float | None) -> float:
    return np.nan if value is None else value


def _none_for_nan(values: Floats) -> list[Any]:
    return [None if value != value else value for value in values.tolist()]


def _fit_around_holes(series: Floats, slopes: Floats) -> None:
    """Fill in the slopes, (series, n), of series that lack a few points, but not the last one."""
    known = np.isfinite(series)
    count = known.sum(axis=2)
    holed = known[:, :, -1] & (count >= _MIN_SLOPE_POINTS) & (count < SERIES_LENGTH)
    for place in zip(*np.nonzero(holed), strict=True):
        steps = _OFFSETS[known[place]]
        steps = steps - steps.mean()
        slopes[place] = (steps * series[place][known[place]]).sum() / (steps**2).sum()
