"""Coarser candles from finer ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from llm_trader.arrays import Mask, Times
from llm_trader.errors import InvalidInputError
from llm_trader.market.candles import CandleSeries
from llm_trader.timeframe import Timeframe


class Resampled(NamedTuple):
    """Candles, and the open times of those that lack some of the candles inside them."""

    candles: CandleSeries
    incomplete_ms: Times


def resample(series: CandleSeries, to: Timeframe) -> CandleSeries:
    """A coarser candle is built only where every candle inside it is present.

    Raises `InvalidInputError` unless `to` is a multiple of the series' timeframe.
    """
    factor = _factor(series, to)
    first, count = _buckets(series, to)
    complete = first[count == factor]
    rows = complete[:, None] + np.arange(factor)
    return CandleSeries(
        to,
        series.open_time_ms[complete],
        series.open[complete],
        series.high[rows].max(axis=1, initial=-np.inf),
        series.low[rows].min(axis=1, initial=np.inf),
        series.close[complete + factor - 1],
        series.volume[rows].sum(axis=1),
    )


def resample_with_holes(series: CandleSeries, to: Timeframe, least_share: float) -> Resampled:
    """Also builds a candle where a share of those inside it is present, its first and last among.

    Its open and close are exact. Its high, low and volume are those of the candles that are there:
    the true range may be wider, and the true volume is larger; neither is scaled up, as what
    happened in a hole is unknown. Raises as `resample`.
    """
    whole = resample(series, to)
    factor, (first, count) = _factor(series, to), _buckets(series, to)
    last = first + count - 1
    open_ms = series.open_time_ms[first] // to.ms * to.ms
    partial = (
        (count < factor)
        & (count >= least_share * factor)
        & (series.open_time_ms[first] == open_ms)
        & (series.open_time_ms[last] == open_ms + to.ms - series.timeframe.ms)
    )
    if not partial.any():
        return Resampled(whole, np.empty(0, np.int64))
    parts = _from_parts(series, to, first[partial], last[partial])
    times = np.concatenate((whole.open_time_ms, parts.open_time_ms))
    order = np.argsort(times)
    columns = {
        name: np.concatenate((values, getattr(parts, name)))[order]
        for name, values in whole.columns()
    }
    return Resampled(CandleSeries(to, times[order], **columns), parts.open_time_ms)


def _from_parts(series: CandleSeries, to: Timeframe, first: Times, last: Times) -> CandleSeries:
    """One candle of the rows from each first to each last one."""
    slices = [slice(a, b + 1) for a, b in zip(first.tolist(), last.tolist(), strict=True)]
    return CandleSeries(
        to,
        series.open_time_ms[first],
        series.open[first],
        np.array([series.high[rows].max() for rows in slices]),
        np.array([series.low[rows].min() for rows in slices]),
        series.close[last],
        np.array([series.volume[rows].sum() for rows in slices]),
    )


def _factor(series: CandleSeries, to: Timeframe) -> int:
    factor, rest = divmod(to.ms, series.timeframe.ms)
    if rest or factor < 1:
        raise InvalidInputError(f"cannot build {to} candles from {series.timeframe}")
    return factor


def _buckets(series: CandleSeries, to: Timeframe) -> tuple[Times, Times]:
    """The first row of each coarser candle, and how many rows it has."""
    starts: Mask = np.diff(series.open_time_ms // to.ms, prepend=-1) != 0
    first = np.flatnonzero(starts)
    return first, np.diff(np.append(first, len(series)))
