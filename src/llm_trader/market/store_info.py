"""The identity that a store records in `meta`, and its description."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from llm_trader.errors import ConfigurationError, StoreError
from llm_trader.market import checksums, keys, record_ranges
from llm_trader.market.built_candles import read_built
from llm_trader.market.frozen import FrozenStretch, frozen_stretches
from llm_trader.market.missing_rows import MissingRows, Reason, missing_rows
from llm_trader.market.series_records import Source, provenance, read_meta
from llm_trader.market.stored_series import StoredSeries
from llm_trader.storage.environment import ReadTransaction, WriteTransaction
from llm_trader.timeframe import Millis, iso8601

SCHEMA_VERSION: Final = 1
_LAYOUT: Final = "market"
_IDENTITY: Final = {"layout": _LAYOUT, "schema_version": SCHEMA_VERSION}


class GapInfo(msgspec.Struct, frozen=True):
    """Missing rows, and why: from `start` to before `end`, how many.

    `outage`: the exchange was asked and has none. `rejected`: those that it sent were refused.
    `not_fetched`: nobody has asked, as far as the store knows.
    """

    start: str
    end: str
    start_ms: Millis
    end_ms: Millis
    missing: int
    reason: Reason = "not_fetched"


class SeriesInfo(msgspec.Struct, frozen=True):
    """One stored series; `provenance` is empty where none was kept.

    Of samples, `gaps` are where one was due and is not there. `frozen` is for candles
    only, and `None` where they cannot be read.
    """

    kind: str
    symbol: str
    timeframe: str | None
    rows: int
    first: str
    last: str
    first_ms: Millis
    last_ms: Millis
    missing: int
    gaps: list[GapInfo]
    frozen: list[FrozenStretch] | None
    provenance: list[Source]
    built: int = 0  # from finer candles
    incomplete: list[str] = []  # open times of those that were built from a part of them
    age_seconds: float | None = None  # since its newest candle closed, or its newest sample


class StoreInfo(msgspec.Struct, frozen=True):
    """`exchange` and `schema_version` are `None` where they were never recorded."""

    path: str
    exchange: str | None
    schema_version: int | None
    series: list[SeriesInfo]


def is_market_store(txn: ReadTransaction) -> bool:
    """Whether the store names our layout, or holds candles as the original program wrote them."""
    stored = read_meta(txn, "layout", str)
    candles = (keys.timeframe_of(name) for name in record_ranges.series_databases(txn))
    return stored == _LAYOUT if stored is not None else any(candles)


def check_version(txn: ReadTransaction) -> int | None:
    """The schema version, `None` in the original layout; `StoreError` if it is newer than ours."""
    version = read_meta(txn, "schema_version", int)
    if version is not None and version > SCHEMA_VERSION:
        raise StoreError(
            f"the store has schema version {version}, this program reads {SCHEMA_VERSION} at most; "
            "upgrade llm-trader-rag"
        )
    return version


def check_exchange(txn: ReadTransaction, exchange: str | None) -> str | None:
    """The recorded exchange; `ConfigurationError` if it is not the given one."""
    stored = read_meta(txn, "exchange", str)
    if exchange and stored and stored != exchange:
        raise ConfigurationError(
            f"the store holds data of {stored}, not of {exchange}; use one folder per exchange"
        )
    return stored


def write_identity(txn: WriteTransaction) -> None:
    """Record the layout and its version where they are missing."""
    for key, value in _IDENTITY.items():
        if txn.get(keys.META, key.encode()) is None:
            checksums.put_meta(txn, key, msgspec.json.encode(value))


def has_identity(txn: ReadTransaction) -> bool:
    return all(txn.get(keys.META, key.encode()) is not None for key in _IDENTITY)


def claim_exchange(txn: WriteTransaction, exchange: str | None) -> None:
    """Record the exchange; `ConfigurationError` where another process has claimed the store."""
    if check_exchange(txn, exchange) is None and exchange is not None:
        checksums.put_meta(txn, "exchange", msgspec.json.encode(exchange))


def describe(txn: ReadTransaction, path: str, now_ms: Millis | None = None) -> StoreInfo:
    return StoreInfo(
        path,
        check_exchange(txn, None),
        check_version(txn),
        [_series_info(txn, series, now_ms) for series in record_ranges.all_series(txn)],
    )


def _series_info(
    txn: ReadTransaction, series: StoredSeries[Any], now_ms: Millis | None
) -> SeriesInfo:
    times = record_ranges.times(txn, series)
    first_ms, last_ms = int(times[0]), int(times[-1])
    gaps = missing_rows(txn, series, times)
    built = read_built(txn, series)
    newest_ms = last_ms + (series.timeframe.ms if series.timeframe else 0)
    return SeriesInfo(
        "candles" if series.timeframe else series.database,
        series.symbol,
        str(series.timeframe) if series.timeframe else None,
        len(times),
        iso8601(first_ms),
        iso8601(last_ms),
        first_ms,
        last_ms,
        sum(gap.missing for gap in gaps),
        [gap_info(gap) for gap in gaps],
        _frozen(txn, series),
        provenance(txn, series),
        int(built.contain(times).sum()),
        [iso8601(time_ms) for time_ms in built.incomplete_ms],
        None if now_ms is None else (now_ms - newest_ms) / 1000,
    )


def gap_info(gap: MissingRows) -> GapInfo:
    times = iso8601(gap.start_ms), iso8601(gap.end_ms)
    return GapInfo(*times, *gap.span, gap.missing, gap.reason)


def _frozen(txn: ReadTransaction, series: StoredSeries[Any]) -> list[FrozenStretch] | None:
    if series.timeframe is None:
        return []
    try:
        return frozen_stretches(record_ranges.parts(txn, series))
    except StoreError:
        return None  # `data check --deep` says where the damage is
