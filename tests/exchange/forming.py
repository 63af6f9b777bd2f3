"""How a candle looks before it has ended.

Its price goes from the open by way of both extremes to the close, and its volume grows evenly.
Where the listing has finer candles, those make up the coarser one. All of it is a function of the
time, so every interface shows the same, and the last state is the final candle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from llm_trader.market.candles import CandleSeries
from llm_trader.timeframe import Millis, Timeframe


class Values(NamedTuple):
    open: float
    high: float
    low: float
    close: float
    volume: float


class FormingCandles:
    """The candles of one listing at any moment; recent ones are remembered."""

    def __init__(self, candles: Mapping[Timeframe, CandleSeries]) -> None:
        self._candles = candles
        self._finals: dict[Timeframe, tuple[Millis, Values | None]] = {}
        self._past: dict[Timeframe, tuple[Millis, Millis, Values | None]] = {}

    def at(self, timeframe: Timeframe, open_ms: Millis, time_ms: Millis) -> Values | None:
        """The candle as known at `time_ms`; None where there is no such candle."""
        final = self._final(timeframe, open_ms)
        if final is None or time_ms >= open_ms + timeframe.ms:
            return final
        made = self._from_finer(timeframe, open_ms, time_ms)
        if made is None:
            return _on_the_way(final, (time_ms - open_ms) / timeframe.ms)
        return Values(
            final.open,
            min(made.high, final.high),
            max(made.low, final.low),
            min(max(made.close, final.low), final.high),
            min(made.volume, final.volume),
        )

    def _final(self, timeframe: Timeframe, open_ms: Millis) -> Values | None:
        known = self._finals.get(timeframe)
        if known is not None and known[0] == open_ms:
            return known[1]
        part = self._candles[timeframe].between(open_ms, open_ms + 1)
        final = Values(*(float(column[0]) for _, column in part.columns())) if len(part) else None
        self._finals[timeframe] = (open_ms, final)
        return final

    def _from_finer(self, timeframe: Timeframe, open_ms: Millis, time_ms: Millis) -> Values | None:
        finer = self._finer(timeframe)
        if finer is None:
            return None
        begun_ms = finer.floor(time_ms)
        past, latest = None, self.at(finer, begun_ms, time_ms)
        if begun_ms > open_ms:
            past = self._ended(timeframe, finer, open_ms, begun_ms)
            if past is None or latest is None:
                return None
        return latest if past is None or latest is None else _joined(past, latest)

    def _finer(self, timeframe: Timeframe) -> Timeframe | None:
        return max(
            (other for other in self._candles
             if other < timeframe and timeframe.ms % other.ms == 0),
            default=None,
        )  # fmt: skip

    def _ended(
        self, timeframe: Timeframe, finer: Timeframe, open_ms: Millis, end_ms: Millis
    ) -> Values | None:
        """What the finer candles from `open_ms` to `end_ms` add up to; None where one lacks."""
        known = self._past.get(timeframe)
        if known is not None and known[:2] == (open_ms, end_ms):
            return known[2]
        part = self._candles[finer].between(open_ms, end_ms)
        values = None
        if len(part) == (end_ms - open_ms) // finer.ms:
            values = Values(
                float(part.open[0]), float(part.high.max()), float(part.low.min()),
                float(part.close[-1]), float(part.volume.sum()),
            )  # fmt: skip
        self._past[timeframe] = (open_ms, end_ms, values)
        return values


def _joined(past: Values, latest: Values) -> Values:
    volume = past.volume + latest.volume
    digits = max(decimals(past.volume), decimals(latest.volume))
    return Values(
        past.open, max(past.high, latest.high), min(past.low, latest.low), latest.close,
        round(volume, digits),
    )  # fmt: skip


def _on_the_way(final: Values, share: float) -> Values:
    """With `share` of its time gone: by the low first if it rises, else by the high."""
    extremes = (final.low, final.high) if final.close >= final.open else (final.high, final.low)
    stations = (final.open, *extremes, final.close)
    leg = int(share * 3)
    before, after = stations[leg], stations[leg + 1]
    digits = max(decimals(value) for value in stations)
    price = round(before + (after - before) * (share * 3 - leg), digits)
    passed = (*stations[: leg + 1], price)
    volume = round(final.volume * share, decimals(final.volume))
    return Values(final.open, max(passed), min(passed), price, volume)


def decimals(value: float) -> int:
    text = repr(value)
    if "e" in text:
        return 12
    return len(text.partition(".")[2])
