"""One symbol's records as they are stored, so that a later read decodes only what has changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from llm_trader.market.history import MarketHistory
from llm_trader.market.jumps import CandleSpan, mark_jumps
from llm_trader.market.stored_series import Items, SeriesT, StoredSeries
from llm_trader.timeframe import Millis


class StoredHistory(NamedTuple):
    """Intraday candles, 4h candles, funding and open interest, from one state of a store."""

    symbol: str
    series: tuple[StoredSeries[Any], ...]
    records: tuple[Items, ...]
    open_interest_interval_ms: Millis
    accepted_jumps: tuple[CandleSpan, ...] = ()

    def decode(self) -> MarketHistory:
        """The checked series; raises `StoreError` naming the first damaged record."""
        decoded = (s.read(records) for s, records in zip(self.series, self.records, strict=True))
        return self._history(*decoded)

    def decode_changes(
        self, earlier: StoredHistory, history: MarketHistory
    ) -> tuple[MarketHistory, Millis | None]:
        """The same as `decode`, given an earlier read of the same ranges and what it decoded to.

        Also returns the first time at which the two histories differ in what is known; `None`
        where they are equal. Raises as `decode`.
        """
        # Another sampling interval changes which samples are fresh, and an accepted jump which
        # candles belong together, in the whole history.
        if (self.open_interest_interval_ms, self.accepted_jumps) != (
            earlier.open_interest_interval_ms,
            earlier.accepted_jumps,
        ):
            return self.decode(), 0
        decoded: list[Any] = []
        changed_ms: list[Millis] = []
        candles_and_samples = (
            *(history.intraday, history.four_hour),
            *(history.funding, history.open_interest),
        )
        for series, records, old, values in zip(
            self.series, self.records, earlier.records, candles_and_samples, strict=True
        ):
            same = _shared_count(records, old)
            tails = [part.keys[same] for part in (records, old) if len(part.keys) > same]
            changed_ms += [_known_ms(series, key) for key in tails]
            decoded.append(_replace_tail(series, values, same, records) if tails else values)
        return self._history(*decoded), min(changed_ms, default=None)

    def _history(self, *series: Any) -> MarketHistory:
        *candles, funding, interest = series
        intraday, four_hour = (mark_jumps(part, self.accepted_jumps) for part in candles)
        interval_ms = self.open_interest_interval_ms
        return MarketHistory(self.symbol, intraday, four_hour, funding, interest, interval_ms)


def _shared_count(records: Items, old: Items) -> int:
    """How many records at the beginning are equal."""
    count = min(len(records.keys), len(old.keys))
    if records.keys[:count] == old.keys[:count] and records.values[:count] == old.values[:count]:
        return count
    pairs = zip(zip(*records, strict=True), zip(*old, strict=True), strict=False)
    return next(row for row, (new, was) in enumerate(pairs) if new != was)


def _known_ms(series: StoredSeries[Any], key: bytes) -> Millis:
    """A candle is known at its close, a sample at its time."""
    return series.time(key) + (series.timeframe.ms if series.timeframe else 0)


def _replace_tail(
    series: StoredSeries[SeriesT], values: SeriesT, same: int, records: Items
) -> SeriesT:
    tail = series.read(Items(records.keys[same:], records.values[same:]))
    columns: dict[str, Any] = {
        name: np.concatenate((getattr(values, name)[:same], getattr(tail, name)))
        for name in (values.time_field, *values.value_fields)
    }
    return replace(values, **columns)
