"""Which files of the archive a span of time needs.

Candles come as files of months, and of days where a month has not ended or has just done so.
Funding comes in months alone, open interest (`metrics`) in days alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from llm_trader.market.file_columns import Kind
from llm_trader.market.months import Period, days, months
from llm_trader.timeframe import DAY_MS, M5, Millis, Timeframe, parse_time

# The notes of a store about files (`ArchiveRecord`), by their path.
NOTES: Final = "archive"
# Files of a month appear some days after its end; those of its days are there all the while.
_MONTH_MAY_BE_LATE_MS: Final = 45 * DAY_MS
# What is not there a week after its end was never traded, or never published.
_LATE_MS: Final = 7 * DAY_MS

# From then on, metrics have the start of the five minutes at whose end they were taken, and before
# it their end (binance-public-data #491). Read as they are, they would show the future.
_METRICS_OF_STARTS_FROM_MS: Final = parse_time("2026-06-25")


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """`path` is below `data/futures/um/`. A month may have `days` that stand for it."""

    path: str
    symbol: str
    kind: Kind
    interval: Timeframe | None
    period: Period
    days: tuple[ArchiveFile, ...] = ()

    @property
    def shift_ms(self) -> Millis:
        """From the time that the file has of a row to the time at which the row was known."""
        is_early = self.period.start_ms >= _METRICS_OF_STARTS_FROM_MS
        return M5.ms if self.kind == "open_interest" and is_early else 0

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def series(self) -> tuple[str, Kind, str | None]:
        """Its symbol, kind and timeframe."""
        return self.symbol, self.kind, str(self.interval) if self.kind == "candles" else None


class ArchiveRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the store keeps of a file: its content is stored, was refused, or there was no file.

    `etag` and `last_modified` are those of the reply, for asking whether the file has changed.
    """

    state: Literal["stored", "refused", "missing"]
    checked_at_ms: Millis
    sha256: str | None = None
    etag: str | None = None
    last_modified: str | None = None
    reason: str | None = None

    def is_settled(self, file: ArchiveFile) -> bool:
        """Whether to ask for the file again would be in vain."""
        if self.state == "missing":
            return self.checked_at_ms >= file.period.end_ms + _LATE_MS
        return self.state == "stored"


def plan_files(
    symbols: Iterable[str],
    timeframes: Sequence[Timeframe],
    start_ms: Millis,
    end_ms: Millis,
    now_ms: Millis,
) -> Iterator[ArchiveFile]:
    """The files with data of `start_ms <= time < end_ms`, finest candles first, in order of time.

    Files are whole months or days, so they may begin earlier and end later.
    """
    end_ms = min(end_ms, now_ms)
    for symbol in symbols:
        for timeframe in sorted(timeframes):
            yield from _candle_files(symbol, timeframe, start_ms, end_ms, now_ms)
        for month in months(start_ms, end_ms):
            if month.end_ms <= now_ms:
                path = f"monthly/fundingRate/{symbol}/{symbol}-fundingRate-{month.name}.zip"
                yield ArchiveFile(path, symbol, "funding", None, month)
        for day in days(start_ms, end_ms):
            if day.end_ms <= now_ms:
                path = f"daily/metrics/{symbol}/{symbol}-metrics-{day.name}.zip"
                yield ArchiveFile(path, symbol, "open_interest", M5, day)


def _candle_files(
    symbol: str, timeframe: Timeframe, start_ms: Millis, end_ms: Millis, now_ms: Millis
) -> Iterator[ArchiveFile]:
    def file(period: Period, length: str, of_days: tuple[ArchiveFile, ...] = ()) -> ArchiveFile:
        name = f"{symbol}-{timeframe}-{period.name}.zip"
        path = f"{length}/klines/{symbol}/{timeframe}/{name}"
        return ArchiveFile(path, symbol, "candles", timeframe, period, of_days)

    for month in months(start_ms, end_ms):
        span_ms = max(start_ms, month.start_ms), min(end_ms, month.end_ms)
        of_days = (file(day, "daily") for day in days(*span_ms) if day.end_ms <= now_ms)
        if month.end_ms > now_ms:
            yield from of_days
        elif now_ms < month.end_ms + _MONTH_MAY_BE_LATE_MS:
            yield file(month, "monthly", tuple(of_days))
        else:
            yield file(month, "monthly")


def file_of_path(path: str) -> ArchiveFile:
    """The file of a path that `plan_files` made."""
    length, kind, symbol, *interval, name = path.split("/")
    stem = name.removesuffix(".zip")
    is_day = length == "daily"
    start_ms = parse_time(stem[-10:] if is_day else f"{stem[-7:]}-01")
    period = next((days if is_day else months)(start_ms, start_ms + 1))
    if kind == "klines":
        return ArchiveFile(path, symbol, "candles", Timeframe.parse(interval[0]), period)
    if kind == "metrics":
        return ArchiveFile(path, symbol, "open_interest", M5, period)
    return ArchiveFile(path, symbol, "funding", None, period)
